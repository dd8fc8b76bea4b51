//! `roundtable member`: who takes part, and who shall.
//!
//! A change is asked for once, then looked for in the list until it is there. What passes by itself (an election, another change
//! that is not committed) is waited for.

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock: waiting has a deadline")]

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::args::{Format, MemberArgs, MemberCommand};
use super::connect::servers;
use super::output::show;
use super::status::{columns, names};
use super::{Outcome, complain};
use crate::client::{AskError, ask_members};
use crate::config::{check_address, check_name};
use crate::domain::NodeId;
use crate::domain::content::{ErrorContent, MemberContent, MemberList, MemberRole};
use crate::error::StartError;

/// How often it is looked whether a change is done.
const LOOK: Duration = Duration::from_millis(200);

/// Does what `command` says.
pub fn run(command: &MemberCommand) -> Result<Outcome, StartError> {
    let (request, args) = match command {
        MemberCommand::Add { id, address, args } => {
            check_name("ID", id)?;
            address.iter().try_for_each(|address| check_address("ADDR", address).map(drop))?;
            let (id, address) = (id.as_str().into(), address.clone());
            (MemberContent::Add { id, address }, args)
        }
        MemberCommand::Remove { id, args } => {
            check_name("ID", id)?;
            (MemberContent::Remove { id: id.as_str().into() }, args)
        }
        MemberCommand::List { args } => (MemberContent::List, args),
    };
    let mut operator = Operator::new(servers(&args.connect)?, args);
    let list = match &request {
        MemberContent::List => operator.ask(&request)?,
        change => operator.change(change)?,
    };
    print(&request, &list, args.format);
    Ok(Outcome::Done)
}

/// Why not.
enum No {
    /// What passes by itself.
    Later(String),
    /// What does not.
    ForGood(String),
}

impl From<ErrorContent> for No {
    fn from(refusal: ErrorContent) -> Self {
        if refusal.retryable { Self::Later(refusal.reason) } else { Self::ForGood(refusal.reason) }
    }
}

impl From<No> for StartError {
    fn from(no: No) -> Self {
        let (No::Later(reason) | No::ForGood(reason)) = no;
        Self::Other(reason)
    }
}

/// Someone who asks servers, and has only so much time.
struct Operator {
    addresses: Vec<String>,
    deadline: Instant,
    waits: bool,
    /// What is waited for, so that it is told once.
    told: String,
}

impl Operator {
    fn new(addresses: Vec<String>, args: &MemberArgs) -> Self {
        let wait = Duration::from_millis(args.wait_ms);
        let (deadline, waits) = (Instant::now() + wait, args.wait_ms > 0);
        Self { addresses, deadline, waits, told: String::new() }
    }

    /// Asks the servers in turn; the first one that answers, or refuses for good, decides.
    fn ask(&mut self, request: &MemberContent) -> Result<MemberList, No> {
        let mut failures = Vec::new();
        let mut refused = None;
        for address in self.addresses.clone() {
            match ask_members(&address, request) {
                Ok(list) => {
                    self.learn_addresses(&list);
                    return Ok(list);
                }
                Err(AskError::Refused(refusal)) if refusal.code == "CHANGE_REFUSED" => {
                    return Err(No::from(refusal));
                }
                Err(AskError::Refused(refusal)) => {
                    refused.get_or_insert(No::from(refusal));
                }
                Err(AskError::Io(error)) => failures.push(format!("{address}: {error}")),
            }
        }
        let nobody = || No::ForGood(format!("no server answers ({})", failures.join("; ")));
        Err(refused.unwrap_or_else(nobody))
    }

    /// The one that was asked first may be the one that goes.
    fn learn_addresses(&mut self, list: &MemberList) {
        for address in list.members.iter().filter_map(|member| member.address.as_ref()) {
            if !self.addresses.contains(address) {
                self.addresses.push(address.clone());
            }
        }
    }

    /// Asks for a change until it is under way, and then looks until it is done.
    fn change(&mut self, request: &MemberContent) -> Result<MemberList, StartError> {
        let mut list = loop {
            match self.ask(request) {
                Err(No::Later(reason)) => self.wait_for(&reason)?,
                other => break other?,
            }
        };
        while self.waits && !is_done(request, &list) {
            self.wait_for(&awaited(request, &list))?;
            match self.ask(&MemberContent::List) {
                Ok(now) if is_lost(request, &now) => {
                    // A leader that died took it along.
                    if let Ok(again) = self.ask(request) {
                        list = again;
                    }
                }
                Ok(now) => list = now,
                // Nobody answers for a moment.
                Err(_) => {}
            }
        }
        Ok(list)
    }

    /// Waits a little; an error when there is no time left.
    fn wait_for(&mut self, what: &str) -> Result<(), StartError> {
        if !self.waits || Instant::now() >= self.deadline {
            return Err(StartError::Other(what.into()));
        }
        if self.told != what {
            complain(&format_args!("waiting: {what}"));
            self.told = what.into();
        }
        sleep(LOOK);
        Ok(())
    }
}

/// Whether what was asked for is committed.
fn is_done(request: &MemberContent, list: &MemberList) -> bool {
    list.settled
        && match request {
            MemberContent::Add { id, .. } => {
                list.get(id).is_some_and(|member| member.role == MemberRole::Voter)
            }
            MemberContent::Remove { id } => list.get(id).is_none(),
            _ => true,
        }
}

/// Whether it is neither done nor under way, as far as a leader knows.
fn is_lost(request: &MemberContent, list: &MemberList) -> bool {
    let knows = list.settled && list.leader.as_ref() == Some(&list.node);
    knows
        && match request {
            MemberContent::Add { id, .. } => list.get(id).is_none_or(|member| {
                matches!(member.role, MemberRole::Learner | MemberRole::Wiped)
            }),
            MemberContent::Remove { id } => list.get(id).is_some(),
            _ => false,
        }
}

/// What is still to happen. The same words while it is the same, so that it is told once.
fn awaited(request: &MemberContent, list: &MemberList) -> String {
    match request {
        MemberContent::Add { id, .. } => match list.get(id) {
            Some(member) if !member.connected => format!(
                "{id} learns, but is not connected; start it again, or take it out: member remove {id}"
            ),
            _ => format!("{id} learns; it becomes a voter by itself when it has caught up"),
        },
        _ => "the change is not committed yet; member list shows when it is".into(),
    }
}

fn print(request: &MemberContent, list: &MemberList, format: Format) {
    let text = match format {
        // Serialising cannot fail: only string keys.
        Format::Json => serde_json::to_string(list).unwrap_or_default() + "\n",
        Format::Text => match request {
            MemberContent::Add { id, .. } if is_done(request, list) => {
                format!("{id} is a voter; the voters are {}\n", names(&voters(list)))
            }
            MemberContent::Remove { id } if is_done(request, list) => {
                format!("{id} is no member any more; the voters are {}\n", names(&voters(list)))
            }
            _ => table(list),
        },
    };
    show!("{text}");
}

fn voters(list: &MemberList) -> Vec<NodeId> {
    let votes = |role| matches!(role, MemberRole::Voter | MemberRole::Wiped);
    let voters = list.members.iter().filter(|member| votes(member.role));
    voters.map(|member| member.id.clone()).collect()
}

/// The members as a table for people, and what is not usual.
pub fn table(list: &MemberList) -> String {
    let mut rows = vec![["MEMBER", "ADDRESS", "ROLE", "CONNECTED", "BEHIND"].map(String::from)];
    for member in &list.members {
        let is_leader = list.leader.as_ref() == Some(&member.id);
        let leads = if is_leader { ", leads" } else { "" };
        rows.push([
            member.id.to_string(),
            member.address.clone().unwrap_or_else(|| "-".into()),
            format!("{}{leads}", member.role),
            if member.connected { "yes" } else { "no" }.into(),
            member.behind.map_or_else(|| "-".into(), |entries| entries.to_string()),
        ]);
    }
    let mut text = columns(&rows);
    if !list.settled {
        text.push_str("The latest change is not committed yet.\n");
    }
    if list.leader.is_none() {
        let _ = writeln!(text, "No leader is known: this is what {} knows.", list.node);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::MemberStatus;

    fn list(roles: &[(&str, MemberRole)]) -> MemberList {
        let member = |(id, role): &(&str, MemberRole)| MemberStatus {
            id: (*id).into(),
            address: Some(format!("127.0.0.1:700{}", &id[1..])),
            role: *role,
            connected: true,
            behind: Some(0),
        };
        MemberList {
            node: "n1".into(),
            leader: Some("n1".into()),
            term: 2,
            settled: true,
            members: roles.iter().map(member).collect(),
        }
    }

    #[test]
    fn members_are_an_aligned_table() {
        let mut list = list(&[("n1", MemberRole::Voter), ("n2", MemberRole::Wiped)]);
        list.members.push(MemberStatus {
            id: "n10".into(),
            address: None,
            role: MemberRole::Joining,
            connected: false,
            behind: None,
        });
        list.members[1].behind = Some(12_000);
        list.settled = false;
        let expected = "\
MEMBER  ADDRESS         ROLE                CONNECTED  BEHIND
n1      127.0.0.1:7001  voter, leads        yes        0
n2      127.0.0.1:7002  wiped               yes        12000
n10     -               learner, will vote  no         -
The latest change is not committed yet.
";
        assert_eq!(table(&list), expected);
        (list.leader, list.settled) = (None, true);
        assert!(table(&list).ends_with("\nNo leader is known: this is what n1 knows.\n"));
    }

    #[test]
    fn a_change_is_done_when_it_is_committed_and_lost_when_a_leader_knows_nothing_of_it() {
        let add = MemberContent::Add { id: "n4".into(), address: None };
        let remove = MemberContent::Remove { id: "n4".into() };
        let table = [
            (None, (false, true), (true, false)),
            (Some(MemberRole::Learner), (false, true), (false, true)),
            (Some(MemberRole::Joining), (false, false), (false, true)),
            (Some(MemberRole::Voter), (true, false), (false, true)),
            (Some(MemberRole::Wiped), (false, true), (false, true)),
        ];
        for (role, added, removed) in table {
            let others = [("n1", MemberRole::Voter)];
            let n4 = role.map(|role| ("n4", role));
            let list = list(&others.into_iter().chain(n4).collect::<Vec<_>>());
            assert_eq!((is_done(&add, &list), is_lost(&add, &list)), added, "{role:?}");
            assert_eq!((is_done(&remove, &list), is_lost(&remove, &list)), removed, "{role:?}");
            let open = MemberList { settled: false, ..list.clone() };
            assert!(!is_done(&add, &open) && !is_lost(&add, &open), "{role:?}");
            let led_by_another = MemberList { leader: Some("n2".into()), ..list };
            assert!(!is_lost(&add, &led_by_another), "{role:?}");
        }
    }
}
