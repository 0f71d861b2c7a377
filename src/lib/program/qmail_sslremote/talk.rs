//! A dialogue with one server: commands, replies, and when nothing more is said.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::dialogue::client::DialogueError;
use crate::dialogue::client::lines::Lines;
use crate::dialogue::client::smtp::{self, Reply};
use crate::handshake::Session;
use crate::transport::Transport;

/// How long a server whose connection failed is listened to: what it had to say has
/// come before that.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The service is not available, and the server closes the connection: RFC 5321,
/// 3.8 and 4.2.1.
const CLOSING: u16 = 421;

const IN_THE_MESSAGE: &str = "in the message";

fn is_refusal(reply: &Reply) -> bool {
    reply.code >= 400
}

/// Whether a server says with this that it is about to close.
#[must_use]
pub fn is_closing(reply: &Reply) -> bool {
    reply.code == CLOSING
}

/// Why the message was not sent to its end.
pub enum Unsent {
    /// The connection failed.
    Lost(DialogueError),
    /// The server refused it before its end.
    Refused(Reply),
}

/// A dialogue, and how long each answer may take.
pub struct Talk {
    lines: Lines<Transport>,
    time: Duration,
    /// Nobody listens any more, or what is sent would be taken for the message.
    over: bool,
    /// The server's word that it closes, which needs no question.
    closing: Option<Reply>,
}

impl Talk {
    /// Over a connection on which nothing was read.
    #[must_use]
    pub fn new(transport: Transport, time: Duration) -> Talk {
        Talk {
            lines: Lines::new(transport),
            time,
            over: false,
            closing: None,
        }
    }

    /// Whether it is in plain.
    pub fn is_clear(&mut self) -> bool {
        self.transport().is_clear()
    }

    /// The socket, for a handshake. The dialogue is over unless [`Talk::resume`]
    /// is called.
    pub fn take_socket(&mut self) -> Option<TcpStream> {
        self.over = true;
        self.transport().take_socket()
    }

    /// Goes on in TLS, with nothing read so far.
    pub fn resume(&mut self, session: Session) {
        self.lines = Lines::new(Transport::tls(session));
        self.over = false;
    }

    /// The next reply.
    ///
    /// # Errors
    /// The connection failed, or what came is no reply.
    pub fn reply(&mut self, place: &'static str) -> Result<Reply, DialogueError> {
        if let Some(closing) = self.closing.take() {
            return Ok(closing);
        }
        let reply = Reply::read(self.lines(), place);
        self.over |= reply.as_ref().map_or(true, is_closing);
        reply
    }

    /// Sends commands, one or several, none of whose answers may be there already. A
    /// server that has said that it closes is sent nothing; that is its answer.
    ///
    /// # Errors
    /// The server has said something else, or the connection failed.
    pub fn send(&mut self, commands: &[u8], place: &'static str) -> Result<(), DialogueError> {
        let unasked = self.lines().unasked(place).map(<[u8]>::to_vec);
        self.over |= !matches!(&unasked, Ok(said) if said.is_empty());
        let unasked = unasked?;
        if unasked.is_empty() {
            let sent = self.send_bytes(&[commands, b"\r\n"].concat(), place);
            return sent.or_else(|why| match self.last_words() {
                Some(reply) => self.closes(reply),
                None => Err(why),
            });
        }
        if !unasked.starts_with(CLOSING.to_string().as_bytes()) {
            return Err(DialogueError::Unasked(unasked));
        }
        let reply = Reply::read(&mut self.lines, place)?;
        self.closes(reply)
    }

    /// Takes a reply that was not asked for.
    fn closes(&mut self, reply: Reply) -> Result<(), DialogueError> {
        if !is_closing(&reply) {
            return Err(DialogueError::Unasked(reply.text));
        }
        self.closing = Some(reply);
        Ok(())
    }

    /// Fails where the server has said anything by now.
    ///
    /// # Errors
    /// It has, or the connection failed.
    pub fn expect_silence(&mut self) -> Result<(), DialogueError> {
        match self.lines().unasked(IN_THE_MESSAGE)? {
            [] => Ok(()),
            said => Err(DialogueError::Unasked(said.to_vec())),
        }
    }

    /// Sends bytes, whatever the server says meanwhile.
    ///
    /// # Errors
    /// As [`Talk::send`].
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), DialogueError> {
        self.send_bytes(bytes, IN_THE_MESSAGE)
    }

    fn send_bytes(&mut self, bytes: &[u8], place: &'static str) -> Result<(), DialogueError> {
        let sent = self.lines().send(bytes, place);
        self.over |= sent.is_err();
        sent
    }

    /// Sends bytes of a message that the server may refuse before its end; without
    /// any, all that was given so far.
    ///
    /// # Errors
    /// It does, or says something else, or the connection failed.
    pub fn put_content(&mut self, bytes: &[u8]) -> Result<(), Unsent> {
        match self.lines().unasked(IN_THE_MESSAGE).map(<[u8]>::is_empty) {
            Ok(true) => {}
            Ok(false) => return Err(self.interruption()),
            Err(why) => return Err(Unsent::Lost(why)),
        }
        match self.write_in_silence(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(self.interruption()),
            Err(error) => {
                self.over = true;
                let lost = Unsent::Lost(DialogueError::Io(IN_THE_MESSAGE, error));
                let words = self.last_words().filter(is_refusal);
                Err(words.map_or(lost, Unsent::Refused))
            }
        }
    }

    /// Sends bytes to the last one while the server says nothing;
    /// [`io::ErrorKind::WouldBlock`] where it does before they are gone.
    fn write_in_silence(&mut self, bytes: &[u8]) -> io::Result<()> {
        let transport = self.transport();
        transport.watch(true);
        let mut rest = bytes;
        let written = loop {
            let done = match rest {
                [] => transport.flush().map(|()| None),
                some => transport.write(some).map(Some),
            };
            match done {
                Ok(None) => break Ok(()),
                Ok(Some(count)) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        transport.watch(false);
        written
    }

    /// Sends the last bytes of a package. What the server says before they are gone
    /// answers nothing, and then it does not have the package.
    ///
    /// # Errors
    /// [`DialogueError::Unasked`], or the connection failed.
    pub fn put_last(&mut self, bytes: &[u8]) -> Result<(), DialogueError> {
        self.expect_silence()?;
        self.write_in_silence(bytes).map_err(|error| {
            self.over = true;
            let spoken = error.kind() == io::ErrorKind::WouldBlock;
            let said = spoken.then(|| self.expect_silence().err()).flatten();
            said.unwrap_or(DialogueError::Io(IN_THE_MESSAGE, error))
        })
    }

    /// What the server says in the middle of the message. It may refuse it; a word of
    /// another kind is no answer to a message that it does not have yet.
    fn interruption(&mut self) -> Unsent {
        match self.reply(IN_THE_MESSAGE) {
            Ok(reply) if is_refusal(&reply) => Unsent::Refused(reply),
            Ok(reply) => Unsent::Lost(DialogueError::Unasked(reply.text)),
            Err(why) => Unsent::Lost(why),
        }
    }

    /// What a server said before the connection failed.
    fn last_words(&mut self) -> Option<Reply> {
        self.transport().watch(false);
        self.transport().allow(LAST_WORDS);
        Reply::read(&mut self.lines, IN_THE_MESSAGE).ok()
    }

    /// Has libssl read an alert that came before the connection failed.
    pub fn hear_alert(&mut self) {
        let transport = self.transport();
        transport.allow(LAST_WORDS);
        let _ = transport.read(&mut [0]);
    }

    /// A command and its reply.
    ///
    /// # Errors
    /// As [`Talk::send`] and [`Talk::reply`].
    pub fn ask(&mut self, command: &[u8], place: &'static str) -> Result<Reply, DialogueError> {
        self.send(command, place)?;
        self.reply(place)
    }

    /// STARTTLS, up to the go-ahead.
    ///
    /// # Errors
    /// There is none, or more than that came.
    pub fn start_tls(&mut self) -> Result<(), DialogueError> {
        smtp::start_tls(self.lines())
    }

    /// No command is sent any more.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// Says farewell where somebody listens; waiting for the answer is of no use.
    pub fn quit(&mut self) {
        if !self.over {
            let _ = self.send(b"QUIT", "at the end");
        }
        self.transport().close_notify();
    }

    /// The connection.
    pub fn transport(&mut self) -> &mut Transport {
        self.lines.stream()
    }

    /// What comes over it, for a dialogue of another kind that has as much time.
    pub fn lines(&mut self) -> &mut Lines<Transport> {
        let time = self.time;
        self.transport().allow(time);
        &mut self.lines
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A dialogue with a server that has read nothing for so long that no byte more can
    /// be sent, and the server.
    fn full() -> (Talk, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("it")).expect("a server");
        let (server, _) = listener.accept().expect("a client");
        client.set_nonblocking(true).expect("a socket");
        // What was on its way may have made room.
        for _ in 0..20 {
            while (&client).write(&[b'x'; 4096]).is_ok() {}
            std::thread::sleep(Duration::from_millis(10));
        }
        let talk = Talk::new(Transport::clear(client), Duration::from_secs(30));
        (talk, server)
    }

    /// The server speaks while the client waits for room, and only then reads.
    fn speaks_early(mut server: TcpStream) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            // That the client waits already makes the test sharp, not right.
            std::thread::sleep(Duration::from_millis(200));
            server.write_all(b"250 early\r\n").expect("sent");
            let _ = io::copy(&mut server, &mut io::sink());
        })
    }

    #[test]
    fn what_comes_before_the_last_byte_has_room_answers_nothing() {
        let (mut talk, server) = full();
        let server = speaks_early(server);
        let sent = talk.put_content(b".\r\n");
        assert!(matches!(sent, Err(Unsent::Lost(DialogueError::Unasked(_)))));
        drop(talk);
        server.join().expect("the server");

        let (mut talk, server) = full();
        let server = speaks_early(server);
        let sent = talk.put_last(b",");
        assert!(matches!(sent, Err(DialogueError::Unasked(said)) if said == b"250 early\r\n"));
        drop(talk);
        server.join().expect("the server");
    }
}
