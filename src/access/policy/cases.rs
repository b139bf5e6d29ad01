//! Tests of policies, as a deployment writes them: who does what with what, and whether it may.
//!
//! ```toml
//! [[test]]
//! name = "agents hear their own calls"
//! caller = { roles = ["agent"], agent = "a-7" }
//! action = "ReadRecording"
//! record = { agents = ["a-7"] }
//! expect = "allow"
//! by = "agent-own-calls"                       # optional
//! ```

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Ask, Decision, PolicySet, Resource};
use crate::domain::{
    clock::Timestamp,
    ids::{InvalidId, RecordId, TenantId},
    principal::{Action, AuthStrength, InvalidPrincipal, Principal, Role, Teams, TenantScope},
    purpose::{Channel, Purpose},
    record::{Descriptor, Kind, Party, Record, State},
    text::{Country, Text},
};

/// A file of tests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    test: Vec<Case>,
}

/// One of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it says.
    pub name: String,
    caller: Caller,
    action: String,
    #[serde(default = "default_tenant")]
    tenant: String,
    #[serde(default)]
    purpose: Option<String>,
    #[serde(default)]
    record: Option<Facts>,
    expect: Expected,
    #[serde(default)]
    by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Caller {
    roles: Vec<String>,
    /// For these tenants; for all of them when absent.
    #[serde(default)]
    tenants: Option<Vec<String>>,
    #[serde(default)]
    country: Option<String>,
    #[serde(default)]
    strength: Option<String>,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    teams: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Facts {
    kind: Option<String>,
    state: Option<String>,
    purposes: Option<Vec<String>>,
    agents: Vec<String>,
    teams: Vec<String>,
    retention_class: Option<String>,
    incomplete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

/// Actions that have to do with a record.
const HAVE_RECORDS: [Action; 6] = [
    Action::ReadRecording,
    Action::GetMessage,
    Action::BatchGetMessages,
    Action::GetRecord,
    Action::ListRecords,
    Action::UpdateRecord,
];

fn default_tenant() -> String {
    "acme".to_owned()
}

/// Why a file of tests, or one of them, says nothing.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The file is none.
    #[error("not a file of policy tests: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A test speaks of what there is not.
    #[error("test {test:?}: {message}")]
    Case {
        /// Its name.
        test: String,
        /// What is wrong.
        message: String,
    },
}

/// What became of a test.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What was decided.
    pub decision: Decision,
    /// Why it is not what was expected, if it is not.
    pub failure: Option<String>,
}

/// The tests of a file.
///
/// # Errors
/// [`CaseError::Syntax`].
pub fn parse(text: &str) -> Result<Vec<Case>, CaseError> {
    Ok(toml::from_str::<File>(text)?.test)
}

impl Case {
    /// Asks the policies.
    ///
    /// # Errors
    /// [`CaseError::Case`] for a role, action, purpose and the like that there is not.
    pub fn run(&self, policies: &PolicySet, home: &Country) -> Result<Outcome, CaseError> {
        let wrong = |message: String| CaseError::Case {
            test: self.name.clone(),
            message,
        };
        let action = Action::ALL
            .iter()
            .find(|action| format!("{action:?}") == self.action);
        let action = action.ok_or_else(|| wrong(format!("there is no action {}", self.action)))?;
        let tenant: TenantId = self
            .tenant
            .parse()
            .map_err(|error: InvalidId| wrong(error.to_string()))?;
        let purpose = self.purpose.as_deref().map(str::parse::<Purpose>).transpose();
        let principal = self.caller.principal(home).map_err(wrong)?;
        let record = self.record.as_ref().map(|facts| facts.record(&tenant));
        let record = record.transpose().map_err(|error| wrong(error.to_string()))?;
        if record.is_some() && !HAVE_RECORDS.contains(action) {
            return Err(wrong(format!("{} has to do with no record", self.action)));
        }
        let mut ask = Ask {
            principal: &principal,
            action: *action,
            resource: Resource::Tenant(&tenant),
            purpose: purpose.map_err(|error| wrong(error.to_string()))?,
        };
        // As a server asks: for the tenant first, then for the record.
        let mut decision = policies.decide(&ask);
        if let Some(record) = record.as_ref().filter(|_| decision.allowed) {
            ask.resource = Resource::Record(record);
            decision = policies.decide(&ask);
        }
        Ok(Outcome {
            name: self.name.clone(),
            failure: self.failure(&decision),
            decision,
        })
    }

    fn failure(&self, decision: &Decision) -> Option<String> {
        let by = match decision.by.as_slice() {
            [] => "no policy".to_owned(),
            by => by.join(", "),
        };
        if decision.allowed != (self.expect == Expected::Allow) {
            let became = if decision.allowed { "allowed" } else { "denied" };
            return Some(format!("it is {became} by {by}"));
        }
        match &self.by {
            Some(expected) if !decision.by.contains(expected) => {
                Some(format!("it is decided by {by}, not by {expected}"))
            }
            _ => None,
        }
    }
}

impl Caller {
    fn principal(&self, home: &Country) -> Result<Principal, String> {
        let text = |error: InvalidId| error.to_string();
        let roles = self
            .roles
            .iter()
            .map(|role| role.parse())
            .collect::<Result<Vec<Role>, _>>();
        let scope = match &self.tenants {
            None => TenantScope::All,
            Some(tenants) => {
                let tenants = tenants.iter().map(|tenant| tenant.parse());
                TenantScope::Some(tenants.collect::<Result<BTreeSet<TenantId>, _>>().map_err(text)?)
            }
        };
        let country = match self.country.as_deref() {
            // Of nobody knows where.
            Some("") => None,
            Some(country) => Some(country.parse().map_err(text)?),
            None => Some(home.clone()),
        };
        let all = [
            AuthStrength::Token,
            AuthStrength::BoundToken,
            AuthStrength::Certificate,
        ];
        let named = self
            .strength
            .as_deref()
            .unwrap_or_else(|| AuthStrength::Certificate.name());
        let strength = all.into_iter().find(|strength| strength.name() == named);
        let strength = strength.ok_or("strength must be token, bound-token or certificate")?;
        let agent = self
            .agent
            .as_deref()
            .map(str::parse::<Text>)
            .transpose()
            .map_err(text)?;
        let teams = match self.teams.as_slice() {
            [all] if all == "*" => Teams::All,
            teams => {
                let teams = teams.iter().map(|team| team.parse());
                Teams::Some(teams.collect::<Result<_, _>>().map_err(text)?)
            }
        };
        let principal = Principal::new("case", roles.map_err(text)?, scope);
        let principal = principal.map_err(|error: InvalidPrincipal| error.to_string())?;
        Ok(principal
            .from_country(country)
            .recognised_by(strength)
            .at_work_as(agent, teams))
    }
}

impl Facts {
    fn record(&self, tenant: &TenantId) -> Result<Record, InvalidId> {
        let no_such = |what, rule| InvalidId { what, rule };
        let kind = match self.kind.as_deref() {
            None | Some("RECORDING") => Kind::Recording,
            Some("MESSAGE") => Kind::Message,
            Some("ARTIFACT") => Kind::Artifact,
            Some(_) => return Err(no_such("kind", "one of: RECORDING MESSAGE ARTIFACT")),
        };
        let state = match self.state.as_deref() {
            None | Some("ACTIVE") => State::Active,
            Some("RESTRICTED") => State::Restricted,
            Some("BLOCKED") => State::Blocked,
            Some(_) => return Err(no_such("state", "one of: ACTIVE RESTRICTED BLOCKED")),
        };
        let purposes = match &self.purposes {
            None => Purpose::defaults().collect(),
            Some(terms) => terms.iter().map(|term| term.parse()).collect::<Result<_, _>>()?,
        };
        let mut parties = Vec::new();
        for agent in &self.agents {
            parties.push(Party {
                agent_id: Some(agent.parse()?),
                ..Party::default()
            });
        }
        for team in &self.teams {
            parties.push(Party {
                team: Some(team.parse()?),
                ..Party::default()
            });
        }
        let descriptor = Descriptor {
            conversation_id: "case".parse()?,
            channel: Channel::Voice,
            direction: None,
            start: Timestamp(0),
            duration_millis: None,
            parties,
            media_type: "application/octet-stream".parse()?,
            languages: Vec::new(),
            labels: Default::default(),
            data_categories: BTreeSet::new(),
            allowed_purposes: purposes,
            legal_basis: None,
            notice_version: None,
            consent_ref: None,
            source: None,
            retention_class: self.retention_class.as_deref().unwrap_or("standard").parse()?,
            age_flag: None,
            jurisdictions: Vec::new(),
            external_id: None,
            derived_from: None,
            incomplete: self.incomplete,
        };
        Ok(Record {
            tenant: tenant.clone(),
            id: RecordId::earliest(Timestamp(0)),
            kind,
            state,
            descriptor,
            version: 1,
            created: Timestamp(0),
            updated: Timestamp(0),
            size: 0,
            region: "case".parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../docs/policy-tests.toml");

    fn home() -> Country {
        "MX".parse().unwrap()
    }

    fn run(text: &str) -> Result<Vec<Outcome>, CaseError> {
        let policies = PolicySet::default_set(home()).unwrap();
        parse(text)?
            .iter()
            .map(|case| case.run(&policies, &home()))
            .collect()
    }

    #[test]
    fn the_tests_of_the_default_set_hold() {
        let outcomes = run(GOOD).unwrap();
        assert!(outcomes.len() >= 12);
        for outcome in outcomes {
            assert_eq!(outcome.failure, None, "{}", outcome.name);
        }
    }

    #[test]
    fn what_is_not_so_is_told_with_who_decided_it() {
        for (from, to, told) in [
            (
                "expect = \"allow\"",
                "expect = \"deny\"",
                "it is allowed by reader",
            ),
            (
                "by = \"reader\"",
                "by = \"agent\"",
                "it is decided by reader, not by agent",
            ),
            (
                "roles = [\"reader\"]",
                "roles = [\"support\"]",
                "it is denied by code:never-plaintext",
            ),
            (
                "action = \"ReadRecording\"",
                "action = \"RunSweep\"",
                "it is denied by no policy",
            ),
        ] {
            let text = "[[test]]\nname = \"x\"\ncaller = { roles = [\"reader\"] }\naction = \"ReadRecording\"\nexpect = \"allow\"\nby = \"reader\"\n";
            let outcome = run(&text.replace(from, to)).unwrap().remove(0);
            assert_eq!(outcome.failure.as_deref(), Some(told), "{to}");
        }
    }

    #[test]
    fn what_there_is_not_is_named() {
        for (lines, told) in [
            ("caller = { roles = [\"boss\"] }\naction = \"GetRecord\"", "role"),
            (
                "caller = { roles = [\"reader\"] }\naction = \"StealRecord\"",
                "StealRecord",
            ),
            (
                "caller = { roles = [\"reader\", \"dpo\"] }\naction = \"GetRecord\"",
                "cannot be held together",
            ),
            (
                "caller = { roles = [\"reader\"] }\naction = \"GetRecord\"\npurpose = \"Fun\"",
                "purpose",
            ),
            (
                "caller = { roles = [\"reader\"] }\naction = \"GetRecord\"\nrecord = { state = \"LOST\" }",
                "state",
            ),
            (
                "caller = { roles = [\"reader\"], strength = \"guess\" }\naction = \"GetRecord\"",
                "strength",
            ),
            (
                "caller = { roles = [\"reader\"], colour = 1 }\naction = \"GetRecord\"",
                "colour",
            ),
        ] {
            let error = run(&format!("[[test]]\nname = \"x\"\nexpect = \"allow\"\n{lines}\n")).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
