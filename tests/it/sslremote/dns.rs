//! A real authoritative name server: NSD on port 53 of an address of its own.
//! Its zones may hang together from a signed root.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use domain::base::Rtype;

use super::packet::Packet;
use super::remote::fresh_ip;
use crate::harness::{Place, eventually, process, program};

/// Ends with its value.
pub struct Names {
    child: Child,
    pub ip: IpAddr,
    /// The root's keys, where there is a signed root.
    pub anchors: String,
}

impl Names {
    /// Serves `test.` with these lines. A test that calls it needs `nsd`.
    pub fn serve(place: &Place, lines: &str) -> Names {
        let ip = fresh_ip();
        let text = zone_text("test", ip, lines);
        Names::start(place, ip, &[("test".to_owned(), text)])
    }

    /// Serves zones, given with their names and whole texts.
    fn start(place: &Place, ip: IpAddr, zones: &[(String, String)]) -> Names {
        let binary = program("nsd").expect("nsd");
        let home = place.path("").display().to_string();
        let mut config = format!(
            "server:\n ip-address: {ip}\n username: \"\"\n database: \"\"\n zonesdir: \"{home}\"\n \
             pidfile: \"{home}/nsd-{ip}.pid\"\n xfrdfile: \"{home}/xfrd-{ip}\"\n xfrdir: \"{home}\"\n \
             zonelistfile: \"{home}/zones-{ip}\"\n logfile: \"{home}/nsd-{ip}.log\"\n server-count: 1\n\
             rrl-ratelimit: 0\n remote-control:\n control-enable: no\n"
        );
        for (number, (name, text)) in zones.iter().enumerate() {
            let file = place.write(&format!("zone-{ip}-{number}"), text);
            config += "zone:\n";
            config += &[" name: \"", name, "\"\n zonefile: ", &file, "\n"].concat();
        }
        let config = place.write(&format!("nsd-{ip}.conf"), config);
        let child = Command::new(binary)
            .args(["-d", "-c", &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(place.path(&format!("nsd-{ip}.stderr"))).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let names = Names {
            child,
            ip,
            anchors: String::new(),
        };
        wait_for(ip, &zones.last().unwrap().0);
        names
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        process::kill_group(self.child.id());
        let _ = self.child.wait();
    }
}

/// A forwarder of questions by UDP, on port 53 of an address of its own. It lasts
/// as long as the test.
pub struct Forwarder {
    pub ip: IpAddr,
    /// The questions: names and types as they are written in zone files.
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl Forwarder {
    /// `answer` makes the answer of a question; it may ask servers with [`ask`].
    pub fn start(answer: impl Fn(&Packet) -> Option<Packet> + Send + 'static) -> Forwarder {
        let ip = fresh_ip();
        let socket = UdpSocket::bind((ip, 53)).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok((count, from)) = socket.recv_from(&mut bytes) {
                let question = Packet::parse(&bytes[..count]);
                let words = format!("{} {}", question.name, question.kind);
                log.lock().unwrap().push(words);
                if let Some(mut reply) = answer(&question) {
                    reply.id = question.id;
                    // Who asked may be gone by now.
                    let _ = socket.send_to(&reply.to_vec(), from);
                }
            }
        });
        Forwarder { ip, seen }
    }

    /// The questions since the last time.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// A server's answer. A datagram may be lost: it is asked again.
pub fn ask(server: IpAddr, question: &Packet) -> Packet {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let limit = Some(Duration::from_secs(5));
    socket.set_read_timeout(limit).unwrap();
    let mut reply = vec![0; 65535];
    for _ in 0..6 {
        socket.send_to(&question.to_vec(), (server, 53)).unwrap();
        if let Ok(count) = socket.recv(&mut reply) {
            return Packet::parse(&reply[..count]);
        }
    }
    panic!("{server} does not answer");
}

fn zone_text(name: &str, ip: IpAddr, lines: &str) -> String {
    format!(
        "$ORIGIN {name}.\n$TTL 60\n@ IN SOA ns hostmaster 1 60 60 60 60\n@ IN NS ns\nns IN A {ip}\n{lines}\n"
    )
}

/// How a zone is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    /// Not at all, and its parent says so.
    None,
    /// Not at all, and its parent knows nothing of it.
    Unknown,
    /// With NSEC, or with NSEC3 of some rounds.
    Nsec,
    Nsec3(&'static str),
    /// With NSEC, until some years ago.
    Expired,
    /// With NSEC; then this is made that.
    Altered(&'static str, &'static str),
    /// Its parent has a DS, and the zone is served without signatures.
    Stripped,
}

/// A zone's keys, as DNSKEY and as DS.
struct Keys {
    public: String,
    ds: String,
}

/// Zones to be, below a root that is signed.
pub struct Zones<'a> {
    place: &'a Place,
    ip: IpAddr,
    done: Vec<(String, String)>,
    /// What goes into parents: whose delegation, and its lines.
    delegations: Vec<(String, String)>,
    /// The DS of the last zone.
    pub ds: String,
}

impl<'a> Zones<'a> {
    /// `None` where NSD or ldns's tools are not installed.
    pub fn new(place: &'a Place) -> Option<Zones<'a>> {
        for tool in ["nsd", "ldns-keygen", "ldns-signzone"] {
            program(tool)?;
        }
        Some(Zones {
            place,
            ip: fresh_ip(),
            done: Vec::new(),
            delegations: Vec::new(),
            ds: String::new(),
        })
    }

    /// A zone; those below it have to be there before.
    pub fn zone(mut self, name: &str, signing: Signing, lines: &str) -> Self {
        let lines = lines.to_owned() + &self.delegated(name);
        let text = zone_text(name, self.ip, &lines);
        let (served, keys) = self.signed(name, signing, &text);
        let ds = keys.map_or_else(String::new, |keys| keys.ds);
        self.done.push((name.to_owned(), served));
        let lines = format!(
            "{name}. IN NS ns.{name}.\nns.{name}. IN A {}\n{ds}",
            self.ip
        );
        if signing != Signing::Unknown {
            self.delegations.push((name.to_owned(), lines));
        }
        self.ds = ds;
        self
    }

    /// The delegations right below a zone.
    fn delegated(&mut self, name: &str) -> String {
        let suffix = format!(".{name}");
        let below = |child: &str| name.is_empty() || child.ends_with(&suffix);
        let (mine, others) = std::mem::take(&mut self.delegations)
            .into_iter()
            .partition::<Vec<_>, _>(|(child, _)| below(child));
        self.delegations = others;
        mine.into_iter().map(|(_, lines)| lines).collect()
    }

    /// A zone's text as it is to be served, and its keys.
    fn signed(&self, name: &str, signing: Signing, text: &str) -> (String, Option<Keys>) {
        if matches!(signing, Signing::None | Signing::Unknown) {
            return (text.to_owned(), None);
        }
        let origin = format!("{name}.");
        let tool = |words: &[&str]| {
            let mut command = Command::new(program(words[0]).unwrap());
            let command = command.args(&words[1..]).current_dir(self.place.path(""));
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            assert!(output.status.success(), "{words:?}: {output:?}");
            text
        };
        // RSA is what the real root has.
        let algorithm = if name.is_empty() {
            "RSASHA256"
        } else {
            "ECDSAP256SHA256"
        };
        let words = ["-k", "-a", algorithm, "-b", "2048", "-r", "/dev/urandom"];
        let key = tool(&[&["ldns-keygen"], &words[..], &[&origin]].concat());
        let file = format!("unsigned-{name}-{}", self.ip);
        self.place.write(&file, text);
        let output = format!("{file}.signed");
        let mut words = vec!["ldns-signzone", "-o", &origin, "-f", &output];
        words.extend(match signing {
            Signing::Nsec3(rounds) => vec!["-n", "-t", rounds],
            Signing::Expired => vec!["-i", "20200101", "-e", "20200201"],
            _ => vec![],
        });
        words.extend([file.as_str(), &key]);
        tool(&words);
        let signed = fs::read_to_string(self.place.path(&output)).unwrap();
        let served = match signing {
            Signing::Stripped => text.to_owned(),
            Signing::Altered(from, to) => {
                assert!(signed.contains(from), "{signed}");
                signed.replace(from, to)
            }
            _ => signed,
        };
        let read = |kind: &str| {
            let path = self.place.path(&format!("{key}.{kind}"));
            fs::read_to_string(path).unwrap()
        };
        let (public, ds) = (read("key"), read("ds"));
        (served, Some(Keys { public, ds }))
    }

    /// Serves them with the root.
    pub fn serve(mut self) -> Names {
        let delegations = self.delegated("");
        let ip = self.ip;
        let text = format!(
            "$ORIGIN .\n$TTL 60\n@ IN SOA ns hostmaster 1 60 60 60 60\n@ IN NS ns\nns IN A {ip}\n{delegations}\n"
        );
        let (served, keys) = self.signed("", Signing::Nsec, &text);
        self.done.push((".".to_owned(), served));
        let mut names = Names::start(self.place, ip, &self.done);
        names.anchors = keys.unwrap().public;
        names
    }
}

/// A recursive resolver: Unbound, on port 53 of an address of its own. It ends
/// with its value.
pub struct Recursive {
    child: Child,
    pub ip: IpAddr,
}

impl Recursive {
    /// Looks for the root at `root`. With `anchors` it validates. `None` where
    /// Unbound is not installed.
    pub fn start(place: &Place, root: IpAddr, anchors: Option<&str>) -> Option<Recursive> {
        let binary = program("unbound")?;
        let ip = fresh_ip();
        let hints = place.write(
            &format!("hints-{ip}"),
            format!(". 3600 IN NS ns.\nns. 3600 IN A {root}\n"),
        );
        let anchors = anchors.map_or("module-config: \"iterator\"\n".to_owned(), |anchors| {
            let file = place.write(&format!("anchors-{ip}"), anchors);
            format!("module-config: \"validator iterator\"\n trust-anchor-file: \"{file}\"\n")
        });
        let config = place.write(
            &format!("unbound-{ip}.conf"),
            format!(
                "server:\n interface: {ip}\n username: \"\"\n chroot: \"\"\n directory: \"{home}\"\n \
                 pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n num-threads: 1\n \
                 do-daemonize: no\n do-not-query-localhost: no\n do-ip6: no\n \
                 access-control: 127.0.0.0/8 allow\n root-hints: \"{hints}\"\n {anchors}\
                 remote-control:\n control-enable: no\n",
                home = place.path("").display(),
            ),
        );
        let child = Command::new(binary)
            .args(["-d", "-c", &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(place.path(&format!("unbound-{ip}.stderr"))).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        wait_for(ip, ".");
        Some(Recursive { child, ip })
    }
}

impl Drop for Recursive {
    fn drop(&mut self) {
        process::kill_group(self.child.id());
        let _ = self.child.wait();
    }
}

/// Until a server knows the SOA of a zone.
fn wait_for(ip: IpAddr, zone: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let limit = Some(Duration::from_millis(100));
    socket.set_read_timeout(limit).unwrap();
    let question = Packet::question(&format!("{}.", zone.trim_matches('.')), Rtype::SOA);
    let bytes = question.to_vec();
    eventually("the name server answers", || {
        socket.send_to(&bytes, (ip, 53)).ok()?;
        let mut reply = [0; 4096];
        let count = socket.recv(&mut reply).ok()?;
        let reply = Packet::parse(&reply[..count]);
        (!reply.answers.is_empty()).then_some(())
    });
}
