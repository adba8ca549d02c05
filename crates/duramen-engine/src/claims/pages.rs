//! The rest of a long inbox: a claim brings one page of unread messages, and the host is given the others
//! one after the other. The run does not pause before it knows them all.

use std::sync::Arc;
use std::time::Duration;

use duramen_core::ids::RunId;
use duramen_core::run::RunRow;
use duramen_core::store::StoreError;

use super::hands::Hands;
use super::unread::Given;
use crate::common::Common;
use crate::host::{Driven, HostEvent, Ticket};
use crate::leases::Leases;

/// What is read for whom.
pub(super) struct Pages {
    pub(super) common: Arc<Common>,
    pub(super) leases: Arc<Leases>,
    pub(super) hands: Arc<Hands>,
    pub(super) ticket: Ticket,
    pub(super) row: RunRow,
    /// The highest message that the host has.
    pub(super) behind: u64,
}

impl Pages {
    /// Until there is no more, or the run is not driven here any more.
    pub(super) async fn read(mut self) {
        let since = self.common.clock.moment();
        let mut failures = 0;
        loop {
            let RunRow { run_id, epoch, .. } = &self.row;
            let page = self.common.store.inbox(run_id.clone(), self.behind).await;
            if !self.leases.held().has_tenure(run_id, *epoch) {
                return;
            }
            let waited = self.common.clock.moment().since(since);
            match page {
                Ok(page) => {
                    let last = page.messages.last().map(|message| message.seq);
                    self.behind = last.unwrap_or(self.behind).max(self.behind);
                    let more = page.more;
                    self.common.host.push(HostEvent::Page {
                        ticket: self.ticket,
                        messages: page.messages,
                        more,
                    });
                    if !more {
                        return self.told();
                    }
                }
                Err(error) if error.is_of_the_place() && waited < self.common.config.lease => {
                    failures += 1;
                    tracing::debug!(%error, "an inbox could not be read; trying again");
                    let pause = Duration::from_millis(25 << failures.min(6));
                    self.common.env.sleep(pause).await;
                }
                Err(error) => return self.give_up(run_id, *epoch, error),
            }
        }
    }

    /// From now on it may be told what else comes.
    fn told(&self) {
        let told = self.behind.max(self.row.inbox_len);
        self.hands.given([Given::new(self.ticket, &self.row, told)]);
    }

    fn give_up(&self, run_id: &RunId, epoch: i64, error: StoreError) {
        tracing::error!(%error, run = %run_id, "an inbox could not be read; the run is given up here");
        self.hands.ended(self.ticket, Driven::Lost);
        self.common.host.push(HostEvent::Lost {
            ticket: self.ticket,
            epoch,
            error: Some(error),
        });
    }
}
