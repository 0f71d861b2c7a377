//! Questions to a DNS server: each is put once, and of its answer nothing is kept
//! that does not belong to it.
//!
//! The validator above proves each record by the record's own name. A server may
//! send, beside what was asked for, records of other names that are well signed:
//! a DS of somebody else's zone, a denial from there. They never get to it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer as _, RetryDnsHandle};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, RRSIG};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Message, Query, ResponseCode,
};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig, system_conf};

/// The most questions, those included whose answers are known: a validator led
/// in circles stops here.
const MOST: usize = 2000;

type Pool = RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>;
type Known = Result<DnsResponse, NetError>;

/// A server, and what it said.
#[derive(Clone)]
pub struct Questions {
    pool: Pool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    known: HashMap<Query, Known>,
    count: usize,
    failure: Option<String>,
}

/// With EDNS, and signatures wanted.
pub fn options() -> DnsRequestOptions {
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    options.edns_set_dnssec_ok = true;
    options
}

impl Questions {
    /// To `server`, else to those of resolv.conf.
    ///
    /// # Errors
    /// There is none.
    pub fn new(
        server: Option<IpAddr>,
        timeout: Duration,
        attempts: usize,
    ) -> Result<Questions, NetError> {
        let (servers, mut options) = if let Some(ip) = server {
            let servers = vec![NameServerConfig::udp_and_tcp(ip)];
            (servers, ResolverOpts::default())
        } else {
            let (config, options) = system_conf::read_system_conf()?;
            (config.name_servers().to_vec(), options)
        };
        options.timeout = timeout;
        options.attempts = attempts;
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        let provider = TokioRuntimeProvider::default();
        let pool = NameServerPool::from_config(servers, context, provider);
        Ok(Questions {
            pool: RetryDnsHandle::new(pool, attempts),
            state: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last question that nobody answered, and why.
    pub fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    /// Begins anew with [`Questions::failure`].
    pub fn forget_failure(&self) {
        self.state().failure = None;
    }

    /// An answer, be it that there are no such records.
    ///
    /// # Errors
    /// Nobody could tell.
    pub async fn put(&self, query: Query) -> Result<DnsResponse, NetError> {
        let known = {
            let mut state = self.state();
            state.count += 1;
            if state.count > MOST {
                return Err(NetError::from("too many questions"));
            }
            state.known.get(&query).cloned()
        };
        let found = match known {
            Some(found) => found,
            None => self.send_once(&query).await,
        };
        let mut state = self.state();
        if let Err(error) = &found {
            state.failure = Some(format!("{} {}: {error}", query.name, query.query_type));
        }
        state.known.insert(query, found.clone());
        found
    }

    async fn send_once(&self, query: &Query) -> Known {
        let options = options();
        let asked = self.pool.lookup(query.clone(), options).first_answer();
        let mut found = asked.await;
        if let Err(NetError::Dns(DnsError::ResponseCode(
            ResponseCode::FormErr | ResponseCode::NotImp,
        ))) = &found
        {
            // A server older than EDNS: RFC 6891, 7.
            let mut bare = options;
            bare.use_edns = false;
            found = self.pool.lookup(query.clone(), bare).first_answer().await;
        }
        let mut response = match found {
            Ok(response) => response,
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let mut message = Message::query();
                message.add_query(query.clone());
                message.metadata.response_code = none.response_code;
                let authorities = none.authorities.iter().flat_map(|list| list.iter());
                message.authorities = authorities.cloned().collect();
                DnsResponse::from_message(message.into_response())?
            }
            Err(error) => return Err(error),
        };
        prune(query, &mut response);
        Ok(response)
    }
}

impl DnsHandle for Questions {
    type Response = Pin<Box<dyn Stream<Item = Known> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let questions = self.clone();
        Box::pin(stream::once(async move {
            match request.queries.first() {
                Some(query) => questions.put(query.clone()).await,
                None => Err(NetError::from("no question")),
            }
        }))
    }
}

fn signature(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature),
        _ => None,
    }
}

/// Leaves the answer's first step: what was asked for, or the alias in its place;
/// and what denials need: a zone above the name, NSEC and NSEC3 signed by one.
fn prune(query: &Query, response: &mut Message) {
    let name = &query.name;
    response.answers.retain(|record| {
        let kind = signature(record).map_or(record.record_type(), |one| one.input().type_covered);
        match kind {
            RecordType::DNAME => record.name.zone_of(name),
            RecordType::CNAME => record.name == *name,
            kind => kind == query.query_type && record.name == *name,
        }
    });
    let signed: Vec<_> = response
        .authorities
        .iter()
        .filter_map(|record| Some((record.name.clone(), signature(record)?.input())))
        .filter(|(owner, input)| {
            input.signer_name.zone_of(name) && input.signer_name.zone_of(owner)
        })
        .map(|(owner, input)| (owner, input.type_covered))
        .collect();
    response.authorities.retain(|record| {
        if let Some(signature) = signature(record) {
            return signature.input().signer_name.zone_of(name);
        }
        match record.record_type() {
            RecordType::SOA => record.name.zone_of(name),
            RecordType::NS => query.query_type == RecordType::NS && record.name == *name,
            kind @ (RecordType::NSEC | RecordType::NSEC3) => {
                signed.contains(&(record.name.clone(), kind))
            }
            _ => false,
        }
    });
    response.additionals.clear();
}
