//! The TXT record at `_mta-sts.DOMAIN` (RFC 8461, 3.1): that there is a policy, and
//! the id by which a change of it is seen.
#![forbid(unsafe_code)]

use crate::report::Fail;

/// What a record of MTA-STS begins with, before blanks and a semicolon; others are
/// passed by.
const VERSION: &[u8] = b"v=STSv1";
/// The longest id.
const ID_LIMIT: usize = 32;
/// The longest name of a field.
const NAME_LIMIT: usize = 32;

/// The id of a domain's policy, from all TXT records at its place, each with its
/// strings joined. `None`: there is no record.
///
/// # Errors
/// There is none that counts: words that end a sentence. It is as if there were
/// none.
pub fn id(records: &[Vec<u8>]) -> Result<Option<String>, Fail> {
    let mut ours = records.iter().filter_map(|one| fields_of(one));
    let Some(fields) = ours.next() else {
        return Ok(None);
    };
    match ours.count() {
        0 => {}
        others => return Err(format!("there are {} TXT records of MTA-STS", others + 1).into()),
    }
    let mut id = None;
    let fields = fields.split(|&byte| byte == b';');
    let mut fields: Vec<&[u8]> = fields.map(<[u8]>::trim_ascii).collect();
    // One semicolon may stand at the end.
    if fields.last().is_some_and(|last| last.is_empty()) {
        fields.pop();
    }
    for field in fields {
        let Some((name, value)) = field_of(field) else {
            return Err("its TXT record is malformed".into());
        };
        // Of a field that stands there twice the first one counts.
        if name == b"id" && id.is_none() {
            id = Some(value);
        }
    }
    let id = id.ok_or("its TXT record has no id")?;
    let fits = (1..=ID_LIMIT).contains(&id.len()) && id.iter().all(u8::is_ascii_alphanumeric);
    match std::str::from_utf8(id) {
        Ok(id) if fits => Ok(Some(id.to_owned())),
        _ => Err("the id in its TXT record is not 1 to 32 letters and digits".into()),
    }
}

/// What stands behind the version of a record of MTA-STS.
fn fields_of(record: &[u8]) -> Option<&[u8]> {
    let rest = record.strip_prefix(VERSION)?;
    rest.trim_ascii_start().strip_prefix(b";")
}

/// The name and the value of a field.
fn field_of(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = field.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (&field[..at], &field[at + 1..]);
    let [first, rest @ ..] = name else {
        return None;
    };
    let good_name = first.is_ascii_alphanumeric()
        && name.len() <= NAME_LIMIT
        && rest
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte));
    let good_value = value.iter().all(|byte| (0x20..0x7f).contains(byte));
    (good_name && good_value).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &[&[u8]]) -> Result<Option<String>, Fail> {
        let records: Vec<Vec<u8>> = records.iter().map(|one| one.to_vec()).collect();
        id(&records)
    }

    #[test]
    fn the_one_record_has_the_id() {
        for record in [
            &b"v=STSv1; id=20160831085700Z;"[..],
            b"v=STSv1;id=20160831085700Z",
            b"v=STSv1; id=20160831085700Z ; ",
            b"v=STSv1 \t; id=20160831085700Z",
            b"v=STSv1; future=x y; id=20160831085700Z; a.b-c_d=",
            b"v=STSv1; id=20160831085700Z; id=2",
        ] {
            let wanted = Ok(Some("20160831085700Z".to_owned()));
            assert_eq!(of(&[record]), wanted, "{record:?}");
            let others = [&b"v=spf1 -all"[..], record, b"", b"v=STSv1"];
            assert_eq!(of(&others), wanted, "{record:?}");
        }
        let longest = [b"v=STSv1; id=", &[b'a'; 32][..]].concat();
        assert_eq!(of(&[&longest]), Ok(Some("a".repeat(32))));
    }

    #[test]
    fn other_records_are_none() {
        for records in [
            &[][..],
            &[&b""[..]],
            &[b"v=spf1 -all"],
            &[b"v=STSv1"],
            &[b"V=STSv1; id=1"],
            &[b"v=stsv1; id=1"],
            &[b" v=STSv1; id=1"],
            &[b"v=STSv10; id=1"],
            &[b"v=STSv2; id=1"],
        ] {
            assert_eq!(of(records), Ok(None), "{records:?}");
        }
    }

    #[test]
    fn a_record_that_is_wrong_does_not_count() {
        let long = [b"v=STSv1; id=", &[b'a'; 33][..]].concat();
        for (records, why) in [
            (
                &[&b"v=STSv1; id=1"[..], b"v=STSv1; id=1"][..],
                "2 TXT records",
            ),
            (&[b"v=STSv1;"], "no id"),
            (&[b"v=STSv1; x=1"], "no id"),
            (&[b"v=STSv1; ID=1"], "no id"),
            (&[b"v=STSv1; id="], "1 to 32"),
            (&[b"v=STSv1; id=; id=1"], "1 to 32"),
            (&[&long], "1 to 32"),
            (&[b"v=STSv1; id=a-b"], "1 to 32"),
            (&[b"v=STSv1; id=a b"], "1 to 32"),
            (&[b"v=STSv1; id= 1"], "1 to 32"),
            (&[b"v=STSv1; id=a\0"], "malformed"),
            (&["v=STSv1; id=\u{e9}".as_bytes()], "malformed"),
            (&[b"v=STSv1; id"], "malformed"),
            (&[b"v=STSv1; id =1"], "malformed"),
            (&[b"v=STSv1; =1; id=1"], "malformed"),
            (&[b"v=STSv1;; id=1"], "malformed"),
            (&[b"v=STSv1; id=1;;"], "malformed"),
            (&[b"v=STSv1; id=1, x"], "1 to 32"),
        ] {
            let said = of(records).expect_err("it is wrong").to_string();
            assert!(said.contains(why), "{records:?}: {said}");
        }
    }
}
