//! The launcher: settles who the client is, starts the engine, waits for its
//! verdict and becomes the program. It never sees the client's bytes.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use super::generation::{Chosen, Generation, Refusal, Unmade};
use super::proxied::Opening;
use super::voice::Voice;
use super::{Setup, engine, proxied};
use crate::child::Child;
use crate::connection::{self, Connection};
use crate::control;
use crate::environ::Edits;
use crate::report::{NEVER, TEMPORARY, reason};
use crate::session;
use crate::sys::channel::{Channel, Form, ProgramSide};
use crate::sys::{fd, poll, process, signal, socket};

/// An engine that writes more variables than this is not one of ours.
const VARIABLES_LIMIT: usize = 1024 * 1024;

/// How long a health check may take to go on with TLS, or to leave. A client that
/// needs longer has its time for the handshake.
const FIRST_BYTE: Duration = Duration::from_secs(20);

/// What a launcher inherits.
pub(super) struct Context<'a> {
    pub setup: &'a Setup,
    pub generation: &'a Generation,
    /// To the supervisor.
    pub voice: &'a Voice,
    /// The supervisor does not know yet whom to count: it is to be told.
    pub uncounted: bool,
}

/// Serves one client. Returns the exit code of this process, unless it becomes
/// the program.
pub(super) fn run(
    context: &Context<'_>,
    client: TcpStream,
    address: SocketAddr,
    link: OwnedFd,
) -> u8 {
    let setup = context.setup;
    let report = &setup.report;
    let standard = (io::stdin(), io::stdout(), io::stderr());
    // What the supervisor has besides is its own.
    let mut kept = vec![
        standard.0.as_fd(),
        standard.1.as_fd(),
        standard.2.as_fd(),
        client.as_fd(),
        link.as_fd(),
        context.voice.as_fd(),
    ];
    kept.extend(setup.sandbox.descriptor());
    kept.extend(setup.inherited.iter().map(AsFd::as_fd));
    fd::close_all_but(&kept);
    signal::ignore_others();
    process::name("launcher");
    match serve(context, client, address, link) {
        Ok(code) => code,
        Err(failure) => {
            report.warning(format_args!("dropping connection, {failure}"));
            TEMPORARY
        }
    }
}

fn serve(
    context: &Context<'_>,
    client: TcpStream,
    address: SocketAddr,
    link: OwnedFd,
) -> Result<u8, String> {
    tune(context.setup, &client);
    match authorize(context, &client, address)? {
        ControlFlow::Continue((connection, chosen)) => {
            hand_over(context, client, link, &connection, chosen)
        }
        ControlFlow::Break(code) => Ok(code),
    }
}

/// `unable to STEP: REASON`.
fn unable(step: &'static str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("unable to {step}: {}", reason(&error))
}

/// Who the client is, and whether it may come in: its addresses, the limits, the
/// rules. `Break` holds the exit code of a connection that ends here.
fn authorize(
    context: &Context<'_>,
    client: &TcpStream,
    address: SocketAddr,
) -> Result<ControlFlow<u8, (Connection, Chosen)>, String> {
    let setup = context.setup;
    let report = &setup.report;
    let id = process::own_id();
    let local = client.local_addr().map_err(unable("get local address"))?;
    let (local, address) = match open(setup, client, (local, address))? {
        Opening::Ends(local, address) => (local, address),
        Opening::Glance(how) => {
            let shown = connection::shown(address.ip());
            report.status(format_args!("pid {id} from {shown}: {how}"));
            return Ok(ControlFlow::Break(0));
        }
    };
    let admits = |limit: usize| {
        let admitted = context.voice.admits(address.ip(), limit);
        admitted.map_err(unable("ask for admission"))
    };
    let by_rule = context.generation.limits_by_rule();
    // Where it is refused, the supervisor said why.
    if context.uncounted && !by_rule && !admits(setup.limit_per_address)? {
        return Ok(ControlFlow::Break(TEMPORARY));
    }
    let mut connection = Connection::new(local, address);
    report.status(format_args!("pid {id} from {}", connection.remote_ip()));
    let deny = |connection: &Connection, refusal| {
        report.status(format_args!("deny {id} {}", connection.status_fields()));
        match refusal {
            Refusal::Denied => Ok(ControlFlow::Break(NEVER)),
            Refusal::Unable(why) => Err(format!("pid {id} from {}: {why}", connection.remote_ip())),
            Refusal::Unmade(_) => Err("no store for these rules".to_owned()),
        }
    };
    if let Err(refusal) = context.generation.judge_early(&connection) {
        return deny(&connection, refusal);
    }
    connection.look_up(&setup.naming);
    let chosen = match context.generation.choose(setup, &connection) {
        Ok(chosen) => chosen,
        Err(Refusal::Unmade(unmade)) => match make(context, *unmade) {
            Ok(chosen) => chosen,
            Err(why) => return deny(&connection, Refusal::Unable(why)),
        },
        Err(refusal) => return deny(&connection, refusal),
    };
    if by_rule && !admits(chosen.limit.unwrap_or(setup.limit_per_address))? {
        return Ok(ControlFlow::Break(TEMPORARY));
    }
    report.status(format_args!("ok {id} {}", connection.status_fields()));
    Ok(ControlFlow::Continue((connection, chosen)))
}

/// Starts the engine, waits for its verdict (without `-n`), and becomes the
/// program. Returns the exit code where it can't.
fn hand_over(
    context: &Context<'_>,
    client: TcpStream,
    link: OwnedFd,
    connection: &Connection,
    chosen: Chosen,
) -> Result<u8, String> {
    let setup = context.setup;
    let (control, engine_control) = fd::stream_pair().map_err(unable("create socket"))?;
    let (channel, side) =
        Channel::new(form(setup)).map_err(unable("create the program's descriptors"))?;
    let ends = engine::Ends {
        client,
        control: engine_control,
        program: channel,
        link,
    };
    let task = engine::Task {
        setup,
        generation: context.generation,
        store: &chosen.store,
        connection,
        launcher: process::own_id(),
        voice: context.voice,
    };
    let plain = setup
        .options
        .delayed
        .then(|| ends.client.as_fd().try_clone_to_owned());
    let plain = plain.transpose().map_err(unable("set up descriptors"))?;
    let mut place = Some(ends);
    let limit = Duration::from_secs(setup.options.handshake_seconds.into());
    when_there_is_room(Instant::now() + limit, || {
        process::spawn_sibling(|| match place.take() {
            Some(ends) => engine::run(&task, ends),
            None => TEMPORARY,
        })
    })
    .map_err(unable("fork"))?;
    // The engine's ends are the engine's alone: a socket that stayed open here
    // would keep the client from its end of file.
    drop(place);
    let common = &setup.options.common;
    let mut edits = Edits::new();
    edits.extend(connection.variables(common.family, common.tcp_names));
    edits.extend(chosen.variables);
    let descriptors = if let Some(plain) = plain {
        start_in_plaintext(setup, &mut edits, plain, control, side)
    } else {
        let Some(tls) = verdict(&control) else {
            // The engine said why.
            return Ok(TEMPORARY);
        };
        edits.extend(context.generation.name_variables(tls.value("SSL_TLS_SNI")));
        edits.extend(tls);
        Ok(vec![(side.reads, 0), (side.writes, 1)])
    };
    let failure = Child {
        words: &setup.program,
        environment: edits.apply(setup.environment.clone()),
        identity: setup.identity.as_ref(),
        descriptors: descriptors.map_err(unable("set up descriptors"))?,
    }
    .exec();
    setup
        .report
        .warning(format_args!("dropping connection, {failure}"));
    Ok(TEMPORARY)
}

/// Takes the two addresses from the PROXY header, where there is to be one.
fn open(
    setup: &Setup,
    client: &TcpStream,
    own: (SocketAddr, SocketAddr),
) -> Result<Opening, String> {
    let Some(senders) = &setup.senders else {
        return Ok(Opening::Ends(own.0, own.1));
    };
    let options = &setup.options;
    // In TLS it is the client that speaks first.
    let first = if options.delayed {
        Duration::ZERO
    } else {
        FIRST_BYTE.min(Duration::from_secs(options.handshake_seconds.into()))
    };
    proxied::open(senders, client, own, first)
}

/// Sets the client's socket as the options say.
fn tune(setup: &Setup, client: &TcpStream) {
    if !setup.options.keep_source_route {
        socket::kill_ip_options(client);
    }
    if !setup.options.common.nagle {
        // A client that is gone by now is found out soon enough.
        let _ = client.set_nodelay(true);
    }
}

/// Has the store made of rules that nobody met together before. The supervisor
/// makes it for those to come, and tells the keyholder what it may sign for it;
/// this process was forked too early to share it.
fn make(context: &Context<'_>, unmade: Unmade) -> Result<Chosen, String> {
    let Unmade {
        settings,
        variables,
        limit,
    } = unmade;
    let asked = context.voice.asks_for_store(&settings);
    asked.map_err(unable("ask for a store"))?;
    // If it cannot be made, the reason comes to light here too.
    let store = context.generation.mixed_store(context.setup, &settings)?;
    Ok(Chosen {
        store,
        variables,
        limit,
    })
}

/// What the program finds behind its descriptors.
fn form(setup: &Setup) -> Form {
    if setup.options.pipes {
        Form::Pipes
    } else {
        Form::Socket
    }
}

/// Does a step again and again while the system is short of processes or memory.
fn when_there_is_room<T>(
    deadline: Instant,
    mut step: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    /// How long until the next try.
    const REST: Duration = Duration::from_millis(200);
    loop {
        match step() {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM))
                    && Instant::now() < deadline =>
            {
                poll::wait(&mut [], Some(Instant::now() + REST))?;
            }
            other => return other,
        }
    }
}

/// Descriptors and variables of a program that asks for TLS itself: it gets the
/// bare socket, and behind the descriptors that we were started with the control
/// socket and the channel that it is to use from then on.
fn start_in_plaintext(
    setup: &Setup,
    edits: &mut Edits,
    plain: OwnedFd,
    control: OwnedFd,
    side: ProgramSide,
) -> std::io::Result<Vec<(OwnedFd, RawFd)>> {
    // A program may end sooner than the supervisor hears of its engine, and
    // nobody would know whose that is.
    if fd::read_some(&control, &mut [0])? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    fd::write_all(&plain, setup.options.banner.as_bytes())?;
    let inherited = setup.inherited.iter().map(AsRawFd::as_raw_fd);
    let first = inherited.max().unwrap_or(2) + 1;
    let mut descriptors = vec![(plain.try_clone()?, 0), (plain, 1)];
    for ((name, number), descriptor) in ["SSLCTLFD", "SSLREADFD", "SSLWRITEFD"]
        .iter()
        .zip(first..)
        .zip([control, side.reads, side.writes])
    {
        edits.set(name, number.to_string());
        descriptors.push((descriptor, number));
    }
    edits.set("SSLCTLEXT", control::EXTENSIONS);
    Ok(descriptors)
}

/// The engine's variables, or nothing where it failed.
fn verdict(control: &OwnedFd) -> Option<Edits> {
    let mut wire = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match fd::read_some(control.as_fd(), &mut buffer) {
            Ok(0) => {
                let mut edits = Edits::from_wire(&wire)?;
                edits.restrict(session::is_variable);
                return Some(edits);
            }
            Ok(count) if wire.len() < VARIABLES_LIMIT => wire.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}
