//! Reads sslprobe's lines of JSON one by one, so that a run of any length costs no
//! more memory than its longest line.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read as _};

use crate::probe::result::HostResult;

/// The longest line that is read, in bytes. A result with certificates of 200 KB
/// has a twentieth of it.
const LINE_LIMIT: u64 = 16 << 20;

/// Calls `take` with each result, and `skip` with the number of each line that is
/// none and why. Blank lines do not count.
///
/// # Errors
/// The input's.
pub fn read(
    mut input: impl BufRead,
    mut take: impl FnMut(HostResult),
    mut skip: impl FnMut(u64, &str),
) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = input
            .by_ref()
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        if line.last() != Some(&b'\n') && length as u64 == LINE_LIMIT {
            input.skip_until(b'\n')?;
            skip(number, "it is longer than 16 MiB");
            continue;
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            skip(number, "it is not UTF-8");
            continue;
        };
        if text.trim().is_empty() {
            continue;
        }
        // Some editors and shells put a byte order mark before all else.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match HostResult::from_json(text.trim_end()) {
            Ok(result) => take(result),
            // Its reader knows this line alone: for it every one is the first.
            Err(why) => skip(
                number,
                &why.to_string().replace(" at line 1 column ", " at column "),
            ),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_skipped_and_their_numbers_told() {
        let mut input = b"\xef\xbb\xbf{\"host\":\"a\"}\n\n[1]\n{\"host\":\"b\"\n\xff\n".to_vec();
        input.extend(vec![b' '; usize::try_from(LINE_LIMIT).expect("fits") + 9]);
        input.extend(b"\n{\"host\":\"c\"}");
        let (mut hosts, mut skipped) = (Vec::new(), Vec::new());
        read(
            &*input,
            |result| hosts.push(result.host),
            |number, why| skipped.push((number, why.to_owned())),
        )
        .expect("no error of the input");
        assert_eq!(hosts, ["a", "c"]);
        let numbers: Vec<u64> = skipped.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 4, 5, 6]);
        assert!(skipped[3].1.contains("longer"), "{skipped:?}");
        assert!(skipped[1].1.contains(" at column "), "{skipped:?}");
        assert!(
            skipped.iter().all(|(_, why)| !why.contains("at line")),
            "{skipped:?}"
        );
    }
}
