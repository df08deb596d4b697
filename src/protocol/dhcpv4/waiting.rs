//! Clients that came while the addresses to be offered were still looked for.

use super::{
    Engine, Output, Sender, UnixSeconds,
    exchange::{Ask, Link},
    request::Request,
};
use std::net::Ipv4Addr;

/// As many as may come while addresses are looked for; beyond it they are not answered, and ask again.
const MOST: usize = 2_048;
/// Seconds. A client asks again by itself after three at least (RFC 2131 section 4.1).
const LONGEST: UnixSeconds = 2;

/// A DISCOVER that waits for an address.
#[derive(Debug)]
pub(super) struct Waiting {
    request: Request,
    from: Sender,
    link: Link,
    since: UnixSeconds,
}

impl Engine {
    /// There is no address now: if some are being looked for, the client gets one of them as soon as it is known to be
    /// free, rather than after it has asked again.
    pub(super) fn wait(&mut self, ask: Ask<'_>) {
        let Ask { request, from, link, now } = ask;
        let held = ask.origin().map_or(0, |origin| self.table.held_by(origin));
        let (limit, mut subnets) = (self.catalog.scope.leases_per_port, self.catalog.dynamic_subnets());
        let room = self.waiting.len() < MOST && (limit == 0 || held < limit);
        if room && subnets.any(|subnet| self.allows(link, subnet) && self.table.expects_more(subnet)) {
            self.waiting.push_back(Waiting { request: request.clone(), from, link, since: now });
        } else {
            self.stats.ignored += 1;
        }
    }

    /// An address of this subnet is there to be offered: who waits longest for one, and may have one, gets it.
    pub(super) fn serve_waiting(&mut self, subnet: usize, address: Ipv4Addr, now: UnixSeconds, out: &mut Vec<Output>) {
        while self.waiting.front().is_some_and(|waiting| now.saturating_sub(waiting.since) > LONGEST) {
            self.waiting.pop_front();
            self.stats.ignored += 1;
        }
        while self.table.offerable(&self.catalog, address)
            && let Some(first) = self.waiting.iter().position(|waiting| self.allows(waiting.link, subnet))
            && let Some(Waiting { request, from, .. }) = self.waiting.remove(first)
        {
            let left = self.waiting.len();
            self.dispatch(&request, from, now, out);
            // The table is full: it waits again, and so would the others.
            if self.waiting.len() > left {
                break;
            }
        }
    }
}
