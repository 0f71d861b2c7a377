//! Postfix with a configuration of its own, delivering into maildirs.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::process::kill_group;
use crate::harness::{Authority, Identity, Place, eventually, process, program};
use crate::remote::fresh_ip;

pub struct Postfix {
    pub ip: IpAddr,
    config: String,
    mail: PathBuf,
    log: PathBuf,
    /// Postfix wants short paths and folders of its own user.
    folder: PathBuf,
}

impl Postfix {
    /// STARTTLS on port 25 and TLS at once on 465, for `postfix.test`.
    pub fn start(place: &Place, identity: &Identity) -> Option<Postfix> {
        let binary = program("postfix")?;
        nix::unistd::User::from_name("postfix").ok()??;
        let ip = fresh_ip();
        let folder = std::env::temp_dir().join(format!("pf-{ip}"));
        let at = |name: &str| folder.join(name).display().to_string();
        for name in ["q", "d", "conf", "mail"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let own = Command::new("chown")
            .args(["postfix", &at("d"), &at("mail")])
            .status();
        assert!(own.unwrap().success());
        let (certificate, key) = place.identity("postfix", identity);
        let root = place.write("postfix-root.pem", Authority::shared_root().pem());
        let user = nix::unistd::User::from_name("postfix").unwrap().unwrap();
        fs::write(
            at("conf/main.cf"),
            format!(
                "compatibility_level = 3.6\nqueue_directory = {q}\ndata_directory = {d}\n\
                 command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n\
                 shlib_directory = /usr/lib/postfix\nmeta_directory = /etc/postfix\n\
                 mail_owner = postfix\nsetgid_group = postdrop\nmyhostname = mx.test\n\
                 maillog_file = {log}\nmaillog_file_prefixes = /tmp\ninet_interfaces = all\ninet_protocols = ipv4\nmydestination =\n\
                 virtual_mailbox_domains = postfix.test\nvirtual_mailbox_base = {mail}\n\
                 virtual_mailbox_maps = static:box/\nvirtual_uid_maps = static:{uid}\n\
                 virtual_gid_maps = static:{gid}\nvirtual_minimum_uid = 1\n\
                 smtpd_tls_cert_file = {certificate}\nsmtpd_tls_key_file = {key}\n\
                 smtpd_tls_security_level = may\nsmtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = {root}\n\
                 smtpd_tls_received_header = yes\nmessage_size_limit = 100000000\n\
                 virtual_mailbox_limit = 0\nsmtpd_recipient_limit = 2000\n\
                 smtpd_relay_restrictions = permit_auth_destination, reject\n",
                q = at("q"),
                d = at("d"),
                log = at("log"),
                mail = at("mail"),
                uid = user.uid,
                gid = user.gid,
            ),
        )
        .unwrap();
        fs::write(
            at("conf/master.cf"),
            format!(
                "{ip}:25 inet n - n - - smtpd\n\
                 {ip}:465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n\
                 cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
                 tlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\n\
                 bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
                 trace unix - - n - 0 bounce\nvirtual unix - n n - - virtual\n\
                 error unix - - n - - error\nretry unix - - n - - error\n\
                 proxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\n\
                 postlog unix-dgram n - n - 1 postlogd\n"
            ),
        )
        .unwrap();
        let config = at("conf");
        let started = Command::new(binary)
            .args(["-c", &config, "start"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(started.status.success(), "{started:?}");
        let postfix = Postfix {
            ip,
            config,
            mail: folder.join("mail/box/new"),
            log: folder.join("log"),
            folder,
        };
        eventually("Postfix listens", || {
            [25, 465]
                .iter()
                .all(|port| TcpStream::connect((ip, *port)).is_ok())
                .then_some(())
        });
        Some(postfix)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The messages that arrived, when there are so many.
    pub fn mail(&self, count: usize) -> Vec<Vec<u8>> {
        eventually("the mail arrives", || {
            let found: Vec<_> = fs::read_dir(&self.mail).ok()?.flatten().collect();
            (found.len() >= count).then_some(())
        });
        let entries = fs::read_dir(&self.mail).unwrap();
        entries
            .map(|one| fs::read(one.unwrap().path()).unwrap())
            .collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        let _ = Command::new("/usr/sbin/postfix")
            .args(["-c", &self.config, "stop"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
