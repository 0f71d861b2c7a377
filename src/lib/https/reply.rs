//! The reply of a web server (RFC 9112): its head by httparse, its body by its
//! length, in chunks, or up to the end of the connection; all within limits. What
//! says its length twice, or is cut, is no reply.
#![forbid(unsafe_code)]

use std::io::{self, Read};

use crate::text;

/// The longest head, and the most bytes that chunks may take beside a body.
const HEAD_LIMIT: usize = 16 * 1024;
/// The most fields of a head.
const FIELDS: usize = 100;
/// The most replies of the kind 1xx before the real one.
const INTERIM: usize = 8;
/// How much is read at once.
const PIECE: usize = 4096;

/// How the end of a body was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The reply said where it is.
    Told,
    /// It was the end of the session.
    Closed,
    /// The connection ended without the session's end: somebody may have cut it.
    Torn,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status code: 100 to 999.
    pub status: u16,
    /// The media type that it claims, as it stands there.
    pub media_type: Option<String>,
    /// Its body; empty where the status has none.
    pub body: Vec<u8>,
    /// How the end of the body was known.
    pub end: End,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// The deadline of the stream passed.
    Late,
    /// What came is no reply: words that end a sentence.
    Bad(String),
}

fn bad<T>(why: impl Into<String>) -> Result<T, NoReply> {
    Err(NoReply::Bad(why.into()))
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunks,
    ToTheEnd,
}

struct Head {
    status: u16,
    media_type: Option<String>,
    length: Length,
}

/// What came and was not taken yet.
struct Incoming<'a, R> {
    from: &'a mut R,
    buffer: Vec<u8>,
}

/// Reads a reply whose body has at most `limit` bytes. A body that ends with the
/// stream is [`End::Closed`].
///
/// # Errors
/// There is no reply within the limits.
pub fn read<R: Read>(from: &mut R, limit: usize) -> Result<Response, NoReply> {
    let mut incoming = Incoming {
        from,
        buffer: Vec::new(),
    };
    let mut interim = 0;
    let head = loop {
        let head = incoming.head()?;
        if head.status >= 200 {
            break head;
        }
        interim += 1;
        if interim > INTERIM {
            return bad("it sent one interim reply after the other");
        }
    };
    let too_long = || bad(format!("its body is longer than {limit} bytes"));
    let (body, end) = match head.length {
        Length::Bytes(length) if length > limit => return too_long(),
        Length::Bytes(length) => (incoming.bytes(length)?, End::Told),
        Length::Chunks => (incoming.chunks(limit)?, End::Told),
        Length::ToTheEnd => {
            while incoming.buffer.len() <= limit && incoming.fill()? {}
            if incoming.buffer.len() > limit {
                return too_long();
            }
            (incoming.buffer, End::Closed)
        }
    };
    Ok(Response {
        status: head.status,
        media_type: head.media_type,
        body,
        end,
    })
}

impl<R: Read> Incoming<'_, R> {
    /// Reads some bytes; false at the end.
    fn fill(&mut self) -> Result<bool, NoReply> {
        let mut piece = [0; PIECE];
        loop {
            return match self.from.read(&mut piece) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&piece[..count]);
                    Ok(count > 0)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(NoReply::Late),
                Err(error) => bad(format!(
                    "the connection was lost: {}",
                    crate::report::reason(&error)
                )),
            };
        }
    }

    /// As [`Incoming::fill`], where more must come.
    fn more(&mut self) -> Result<(), NoReply> {
        match (self.fill()?, self.buffer.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => bad("it closed the connection before its reply was whole"),
            (false, false) => bad("its reply was cut"),
        }
    }

    fn head(&mut self) -> Result<Head, NoReply> {
        loop {
            if let Some((head, length)) = parsed(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(head);
            }
            if self.buffer.len() > HEAD_LIMIT {
                return bad(format!("its head is longer than {HEAD_LIMIT} bytes"));
            }
            self.more()?;
        }
    }

    /// As many bytes. What follows them is nobody's business: the connection ends.
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, NoReply> {
        while self.buffer.len() < count {
            self.more()?;
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// A body in chunks (RFC 9112, 7.1); trailers are read and thrown away.
    fn chunks(&mut self, limit: usize) -> Result<Vec<u8>, NoReply> {
        let mut body = Vec::new();
        // Extensions and trailers; a chunk of one byte takes six.
        let mut spare = HEAD_LIMIT + 6 * limit;
        loop {
            let size = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        self.buffer.drain(..length);
                        spare = spare.saturating_sub(length);
                        break size;
                    }
                    Ok(httparse::Status::Partial) if self.buffer.len() <= HEAD_LIMIT => {
                        self.more()?;
                    }
                    _ => return bad("a chunk of its body is malformed"),
                }
            };
            if spare == 0 {
                return bad("the chunks of its body are too many");
            }
            let room = limit - body.len();
            let size = match usize::try_from(size) {
                Ok(size) if size <= room => size,
                _ => return bad(format!("its body is longer than {limit} bytes")),
            };
            if size == 0 {
                self.trailers()?;
                return Ok(body);
            }
            body.extend(self.bytes(size)?);
            if self.bytes(2)? != b"\r\n" {
                return bad("a chunk of its body is malformed");
            }
        }
    }

    fn trailers(&mut self) -> Result<(), NoReply> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS];
            match httparse::parse_headers(&self.buffer, &mut fields) {
                Ok(httparse::Status::Complete(_)) => return Ok(()),
                Ok(httparse::Status::Partial) if self.buffer.len() <= HEAD_LIMIT => {}
                _ => return bad("what follows the chunks of its body is malformed"),
            }
            self.more()?;
        }
    }
}

/// The head, if it is whole, and how long it is.
fn parsed(bytes: &[u8]) -> Result<Option<(Head, usize)>, NoReply> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut reply = httparse::Response::new(&mut fields);
    let length = match reply.parse(bytes) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(length)) => length,
        Err(error) => {
            return bad(format!("it does not speak HTTP/1.1: {error}"));
        }
    };
    let status = reply.code.unwrap_or_default();
    if !(100..=999).contains(&status) {
        return bad("its status is malformed");
    }
    let of = |name: &'static str| {
        let fields = reply.headers.iter();
        fields
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value.trim_ascii())
    };
    if let Some(coding) = of("Content-Encoding").find(|one| !one.eq_ignore_ascii_case(b"identity"))
    {
        let coding = text::excerpt(coding, 40);
        return bad(format!(
            "its body is encoded, which nobody asked for: {coding}"
        ));
    }
    let length_of_body = body_length(
        status,
        reply.version == Some(1),
        &of("Transfer-Encoding").collect::<Vec<_>>(),
        &of("Content-Length").collect::<Vec<_>>(),
    )?;
    let media_type = of("Content-Type").next();
    let head = Head {
        status,
        media_type: media_type.map(|value| text::excerpt(value, 200)),
        length: length_of_body,
    };
    Ok(Some((head, length)))
}

/// RFC 9112, 6.3. Two lengths are none, even if they are the same: nobody knows
/// what stood between us and the server.
fn body_length(
    status: u16,
    chunks_allowed: bool,
    codings: &[&[u8]],
    lengths: &[&[u8]],
) -> Result<Length, NoReply> {
    if status < 200 || status == 204 || status == 304 {
        return Ok(Length::Bytes(0));
    }
    match (codings, lengths) {
        ([], []) => Ok(Length::ToTheEnd),
        ([], [length]) => {
            let length = std::str::from_utf8(length).ok();
            let length = length.and_then(|text| text::number(text, 0..=u64::MAX));
            match length.and_then(|number| usize::try_from(number).ok()) {
                Some(number) => Ok(Length::Bytes(number)),
                None => bad("its Content-Length is malformed"),
            }
        }
        ([coding], []) if chunks_allowed && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Length::Chunks)
        }
        (_, [_, ..]) => bad("it gives the length of its body twice"),
        _ => bad("its Transfer-Encoding is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100;

    /// A stream that comes in pieces of a size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            let (now, later) = self.0.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    fn whole(bytes: &[u8]) -> Result<Response, NoReply> {
        let all = read(&mut Pieces(bytes, usize::MAX), LIMIT);
        for size in [1, 2, 3, 7] {
            let cut = read(&mut Pieces(bytes, size), LIMIT);
            assert_eq!(cut, all, "in pieces of {size}");
        }
        all
    }

    fn body(bytes: &[u8]) -> (u16, Vec<u8>, End) {
        let response = whole(bytes).expect("a reply");
        (response.status, response.body, response.end)
    }

    fn trouble(bytes: &[u8]) -> String {
        match whole(bytes) {
            Err(NoReply::Bad(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_body_ends_where_the_reply_says() {
        let hello = || (200, b"hello".to_vec(), End::Told);
        for bytes in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length:  5  \r\n\r\nhello and more",
            b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n05\r\nhello\r\n0\r\nA: b\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            assert_eq!(body(bytes), hello(), "{}", text::printable(bytes));
        }
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n\r\nhello"[..],
            b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhello",
        ] {
            assert_eq!(body(bytes), (200, b"hello".to_vec(), End::Closed));
        }
        let nothing = (204, Vec::new(), End::Told);
        assert_eq!(body(b"HTTP/1.1 204 No Content\r\n\r\nhello"), nothing);
        let moved = b"HTTP/1.1 301 Moved\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(body(moved).0, 301);
        let typed = whole(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=\xff\r\n\r\n");
        let media_type = typed.expect("a reply").media_type;
        assert_eq!(media_type.as_deref(), Some("text/plain; charset=\\xFF"));
    }

    #[test]
    fn what_is_cut_or_says_its_length_twice_is_no_reply() {
        for (bytes, why) in [
            (&b""[..], "before its reply was whole"),
            (b"HTTP/1.1 200 OK\r\nContent-Len", "was cut"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "was cut"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                "before its reply was whole",
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
                "was cut",
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                "before its reply was whole",
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
                "before its reply was whole",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
                "twice",
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", "Content-Length"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "Content-Length"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello", "Content-Length"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "twice",
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                "Transfer-Encoding",
            ),
            (
                b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "Transfer-Encoding",
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b", "encoded"),
            (b"HTTP/1.1 099 x\r\n\r\n", "status"),
            (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "HTTP/1.1: "),
            (b"220 mail.example ESMTP\r\n", "HTTP/1.1: "),
        ] {
            let said = trouble(bytes);
            assert!(said.contains(why), "{}: {said}", text::printable(bytes));
        }
    }

    #[test]
    fn what_is_too_long_is_not_read_to_its_end() {
        let head = "HTTP/1.1 200 OK\r\n";
        let ends = |rest: &[u8]| {
            let bytes = [head.as_bytes(), rest].concat();
            let mut endless = bytes.chain(io::repeat(b'x'));
            match read(&mut endless, LIMIT) {
                Err(NoReply::Bad(why)) => why,
                other => panic!("{other:?}"),
            }
        };
        for rest in [
            &b"\r\n"[..],
            b"Content-Length: 101\r\n\r\n",
            b"Content-Length: 18446744073709551615\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n65\r\n",
            b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert_eq!(ends(rest), "its body is longer than 100 bytes");
        }
        assert!(ends(b"").contains("its head is longer than 16384 bytes"));
        assert!(ends(b"Transfer-Encoding: chunked\r\n\r\n1;").contains("malformed"));
        assert!(ends(b"Transfer-Encoding: chunked\r\n\r\n0\r\n").contains("malformed"));
        let fields = "A: b\r\n".repeat(FIELDS + 1);
        assert!(ends(fields.as_bytes()).contains("HTTP/1.1"));
        let interim = "HTTP/1.1 100 x\r\n\r\n".repeat(INTERIM + 1);
        let answer = format!("{interim}HTTP/1.1 200 OK\r\n\r\n");
        assert!(matches!(
            read(&mut answer.as_bytes(), LIMIT),
            Err(NoReply::Bad(_))
        ));
    }
}
