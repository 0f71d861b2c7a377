//! The chart and the table of doc/performance.md: a script makes them of what
//! package/bench printed.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::need;

/// What package/bench --json prints, as far as the script reads it.
const FIGURES: &str = r#"Medians of 7 interleaved rounds

{"accounting":"a group","cases":[
{"case":"CPU per connection, ECDSA P-256, TLS 1.3, full handshake","unit":"ms","servers":[
{"server":"sslserver","median":2.0},{"server":"tcpserver","median":1.0},{"server":"stunnel","median":2.5},{"server":"socat","median":null}]},
{"case":"Memory per idle connection, ECDSA P-256, TLS 1.3","unit":"KiB of proportional set size","servers":[
{"server":"sslserver","median":460.4},{"server":"stunnel","median":230.2}]},
{"case":"CPU per connection beside 2500 open ones, ECDSA P-256, TLS 1.3, full handshake","unit":"ms","servers":[
{"server":"sslserver, none open","median":2.0},{"server":"sslserver, crowded","median":null}]}]}
"#;

fn made(what: &str, figures: &str) -> (Option<i32>, String, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("package/bench-chart");
    let mut child = Command::new(script)
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A script that does not read is found out by what it says.
    let _ = child.stdin.take().unwrap().write_all(figures.as_bytes());
    let ended = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

#[test]
fn chart_and_table_say_what_was_measured() {
    need!("python3");
    let one_line = FIGURES.replace(",\n", ",").replace("[\n", "[");
    let (code, table, _) = made("table", &one_line);
    assert_eq!(code, Some(0));
    assert_eq!(
        table,
        "| what | sslserver | beside | ratio |\n\
         | --- | --- | --- | --- |\n\
         | TLS 1.3, full handshake, P-256 | 2.00 ms | stunnel: 2.50 ms | 0.80 |\n\
         | TLS 1.3, full handshake, P-256 | 2.00 ms | tcpserver: 1.00 ms | 2.00 |\n\
         | an idle connection | 460 KiB | stunnel: 230 KiB | 2.00 |\n"
    );
    let (code, svg, _) = made("svg", &one_line);
    assert_eq!(code, Some(0));
    assert!(
        svg.starts_with("<svg ") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
    assert!(svg.contains("an idle connection / stunnel") && svg.contains(">0.80<"));
    let (code, nothing, why) = made("svg", "Medians of 7 interleaved rounds\n");
    assert_eq!((code, &*nothing), (Some(1), ""));
    assert!(why.starts_with("bench-chart: fatal: "), "{why}");
}
