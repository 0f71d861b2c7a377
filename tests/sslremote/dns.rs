//! A real authoritative name server: NSD on port 53 of an address of its own.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Place, eventually, process, program};
use crate::remote::fresh_ip;

/// Ends with its value.
pub struct Names {
    child: Child,
    pub ip: IpAddr,
}

impl Names {
    /// Serves `test.` with these lines. `None` where NSD is not installed.
    pub fn serve(place: &Place, lines: &str) -> Option<Names> {
        let binary = program("nsd")?;
        let ip = fresh_ip();
        let zone = place.write(
            "zone",
            format!("$ORIGIN test.\n$TTL 60\n@ IN SOA ns hostmaster 1 60 60 60 60\n@ IN NS ns\nns IN A {ip}\n{lines}\n"),
        );
        let config = place.write(
            "nsd.conf",
            format!(
                "server:\n ip-address: {ip}\n username: \"\"\n database: \"\"\n zonesdir: \"{home}\"\n \
                 pidfile: \"{home}/nsd.pid\"\n xfrdfile: \"{home}/xfrd\"\n xfrdir: \"{home}\"\n \
                 zonelistfile: \"{home}/zones\"\n logfile: \"{home}/nsd.log\"\n server-count: 1\n\
                 remote-control:\n control-enable: no\n\
                 zone:\n name: test\n zonefile: {zone}\n",
                home = place.path("").display(),
            ),
        );
        let child = Command::new(binary)
            .args(["-d", "-c", &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(place.path("nsd.stderr")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let names = Names { child, ip };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        // SOA of test.
        let query = b"\x12\x34\0\0\0\x01\0\0\0\0\0\0\x04test\0\0\x06\0\x01";
        eventually("the name server answers", || {
            socket.send_to(query, (ip, 53)).ok()?;
            let mut reply = [0; 512];
            let (count, _) = socket.recv_from(&mut reply).ok()?;
            (count > 12 && reply[3].trailing_zeros() >= 4 && reply[7] > 0).then_some(())
        });
        Some(names)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        process::kill_group(self.child.id());
        let _ = self.child.wait();
    }
}
