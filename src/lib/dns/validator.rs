//! The check of answers in this process, by libunbound; and what takes its place
//! in a program that was built without it.
#![forbid(unsafe_code)]

#[cfg(validator)]
pub use built_in::Validator;
#[cfg(not(validator))]
pub use missing::Validator;

use super::message::Message;

/// Whether this program has one.
pub const IS_BUILT_IN: bool = cfg!(validator);

/// An answer that is not bogus.
pub struct Checked {
    /// All of it.
    pub message: Message,
    /// Signatures prove it.
    pub secure: bool,
}

#[cfg(validator)]
mod built_in {
    use std::cell::RefCell;
    use std::ffi::CString;
    use std::io;
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use domain::base::Rtype;
    use domain::base::iana::Rcode;

    use super::Checked;
    use crate::dns::name::DomainName;
    use crate::dns::{NoAnswer, Trust, bogus, message};
    use crate::report::{self, Fail};
    use crate::sys::unbound::{Answer, Resolver, Setup};
    use crate::text;

    /// libunbound, with its cache.
    pub struct Validator {
        resolver: RefCell<Resolver>,
        server: SocketAddr,
        trust: Trust,
    }

    fn resolver(server: SocketAddr, trust: &Trust) -> io::Result<Resolver> {
        let excepted = trust.excepted().iter();
        let insecure: Vec<String> = excepted.map(DomainName::in_zone_form).collect();
        Resolver::new(&Setup {
            servers: &[server],
            anchors: trust.anchors(),
            insecure: &insecure,
        })
    }

    /// libunbound's own word where no answer came that it could use.
    fn failed(answer: &Answer) -> bool {
        answer.rcode == i32::from(Rcode::SERVFAIL.to_int())
    }

    impl Validator {
        /// One that asks this server.
        ///
        /// # Errors
        /// It cannot be had: words that end a sentence.
        pub fn new(server: SocketAddr, trust: &Trust) -> Result<Validator, Fail> {
            let resolver = resolver(server, trust).map_err(Fail::unable("start libunbound"))?;
            Ok(Validator {
                resolver: RefCell::new(resolver),
                server,
                trust: trust.clone(),
            })
        }

        /// Begins anew. A question that a server leaves without an answer counts
        /// against the server with libunbound, which then asks it nothing at all for a
        /// while; but one that swallows one kind of question answers the others.
        fn forgive(&self) {
            if let Ok(resolver) = resolver(self.server, &self.trust) {
                self.resolver.replace(resolver);
            }
        }

        /// The answers of questions that are put at the same time.
        pub fn ask(
            &self,
            questions: &[(DomainName, Rtype)],
            limit: Duration,
        ) -> Vec<Result<Checked, NoAnswer>> {
            let deadline = Instant::now() + limit;
            let asked: Vec<(CString, u16)> = questions
                .iter()
                .map(|(name, kind)| {
                    // Without a NUL: those of a name have become digits.
                    let name = CString::new(name.in_zone_form()).unwrap_or_default();
                    (name, kind.to_int())
                })
                .collect();
            let answers = self.resolver.borrow().ask(&asked, deadline);
            let found = match answers {
                Ok(found) => found,
                Err(error) => {
                    let trouble = NoAnswer::Temporary(report::reason(&error));
                    return questions.iter().map(|_| Err(trouble.clone())).collect();
                }
            };
            if found
                .iter()
                .any(|answer| answer.as_ref().is_none_or(failed))
            {
                self.forgive();
            }
            let found = questions.iter().zip(found);
            found
                .map(|((name, kind), answer)| match answer {
                    Some(answer) => self.checked(name, *kind, answer),
                    None => Err(NoAnswer::Temporary(format!(
                        "no answer from {} within {} seconds",
                        self.server.ip(),
                        limit.as_secs()
                    ))),
                })
                .collect()
        }

        fn checked(
            &self,
            name: &DomainName,
            kind: Rtype,
            answer: Answer,
        ) -> Result<Checked, NoAnswer> {
            if let Some(why) = answer.bogus {
                return Err(bogus(name, kind, &text::excerpt(why.as_bytes(), 400)));
            }
            let failed = failed(&answer);
            match message::taken(answer.packet) {
                Some(message) if !failed => Ok(Checked {
                    message,
                    secure: answer.secure,
                }),
                _ => Err(NoAnswer::Temporary(format!(
                    "{} gave no answer that can be used",
                    self.server.ip()
                ))),
            }
        }
    }
}

#[cfg(not(validator))]
mod missing {
    use std::net::SocketAddr;
    use std::time::Duration;

    use domain::base::Rtype;

    use super::Checked;
    use crate::dns::name::DomainName;
    use crate::dns::{NoAnswer, Trust};
    use crate::report::Fail;

    /// There is none.
    pub enum Validator {}

    impl Validator {
        /// None.
        ///
        /// # Errors
        /// Always.
        pub fn new(_: SocketAddr, _: &Trust) -> Result<Validator, Fail> {
            Err(Fail::temporary(
                "this program was built without a validator",
            ))
        }

        /// Nothing can ask it.
        pub fn ask(
            &self,
            _: &[(DomainName, Rtype)],
            _: Duration,
        ) -> Vec<Result<Checked, NoAnswer>> {
            match *self {}
        }
    }
}
