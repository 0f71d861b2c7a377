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
    use std::cell::{Cell, RefCell};
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

    /// How long another server may take to answer in the place of the first, at most.
    const NEXT_LIMIT: Duration = Duration::from_secs(5);

    /// libunbound, with its cache. It asks one server at a time: of several it would
    /// choose by itself, those too that drop signatures.
    pub struct Validator {
        resolver: RefCell<Resolver>,
        servers: Vec<SocketAddr>,
        /// Which of them is asked.
        at: Cell<usize>,
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
        /// One that asks the first server, and another what that leaves without an
        /// answer.
        ///
        /// # Errors
        /// It cannot be had: words that end a sentence.
        pub fn new(
            first: SocketAddr,
            others: Vec<SocketAddr>,
            trust: &Trust,
        ) -> Result<Validator, Fail> {
            let resolver = resolver(first, trust).map_err(Fail::unable("start libunbound"))?;
            Ok(Validator {
                resolver: RefCell::new(resolver),
                servers: std::iter::once(first).chain(others).collect(),
                at: Cell::new(0),
                trust: trust.clone(),
            })
        }

        fn server(&self) -> SocketAddr {
            self.servers[self.at.get()]
        }

        /// Begins anew, with the next server if there is one. A question that a server
        /// leaves without an answer counts against the server with libunbound, which then
        /// asks it nothing at all for a while; but one that swallows one kind of question
        /// answers the others.
        fn begin_anew(&self) {
            self.at.set((self.at.get() + 1) % self.servers.len());
            if let Ok(resolver) = resolver(self.server(), &self.trust) {
                self.resolver.replace(resolver);
            }
        }

        /// The answers of questions that are put at the same time. Each server has its
        /// share of the time for those that the ones before it did not answer.
        pub fn ask(
            &self,
            questions: &[(DomainName, Rtype)],
            limit: Duration,
        ) -> Vec<Result<Checked, NoAnswer>> {
            let deadline = Instant::now() + limit;
            let mut found: Vec<_> = questions
                .iter()
                .map(|_| Err(NoAnswer::Temporary("there is no answer".to_owned())))
                .collect();
            let mut open: Vec<usize> = (0..questions.len()).collect();
            for left in (1..=self.servers.len()).rev() {
                let is_first = left == self.servers.len();
                let time = deadline.saturating_duration_since(Instant::now());
                let mut share = time / u32::try_from(left).unwrap_or(u32::MAX);
                if !is_first {
                    share = share.min(NEXT_LIMIT);
                }
                let asked: Vec<_> = open.iter().map(|at| &questions[*at]).collect();
                let mut answers = self.ask_one(&asked, share).into_iter();
                open.retain(|at| {
                    let Some((answer, is_settled)) = answers.next() else {
                        return false;
                    };
                    // Where the first was silent the others count if what they say can be
                    // used: one may drop signatures.
                    let counts = is_first || answer.is_ok();
                    if counts {
                        found[*at] = answer;
                    }
                    !(counts && is_settled)
                });
                if open.is_empty() {
                    break;
                }
                self.begin_anew();
            }
            found
        }

        /// The answers of the server that is asked now, each with whether it is one that
        /// no other server is asked for.
        fn ask_one(
            &self,
            questions: &[&(DomainName, Rtype)],
            limit: Duration,
        ) -> Vec<(Result<Checked, NoAnswer>, bool)> {
            let asked: Vec<(CString, u16)> = questions
                .iter()
                .map(|(name, kind)| {
                    // Without a NUL: those of a name have become digits.
                    let name = CString::new(name.in_zone_form()).unwrap_or_default();
                    (name, kind.to_int())
                })
                .collect();
            let answers = self.resolver.borrow().ask(&asked, Instant::now() + limit);
            let answers = match answers {
                Ok(answers) => answers,
                Err(error) => {
                    let trouble = NoAnswer::Temporary(report::reason(&error));
                    return questions
                        .iter()
                        .map(|_| (Err(trouble.clone()), true))
                        .collect();
                }
            };
            let answers = questions.iter().zip(answers);
            answers
                .map(|((name, kind), answer)| {
                    if let Some(answer) = answer {
                        let is_settled = answer.bogus.is_some() || !failed(&answer);
                        return (self.checked(name, *kind, answer), is_settled);
                    }
                    let why = format!(
                        "no answer from {} within {} seconds",
                        self.server().ip(),
                        limit.as_secs()
                    );
                    (Err(NoAnswer::Temporary(why)), false)
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
                    self.server().ip()
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
        pub fn new(_: SocketAddr, _: Vec<SocketAddr>, _: &Trust) -> Result<Validator, Fail> {
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
