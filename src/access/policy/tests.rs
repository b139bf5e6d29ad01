//! The role table, and what a deployment's own policies can and cannot do.

use std::collections::BTreeSet;

use super::*;
use crate::domain::{
    clock::Timestamp,
    ids::RecordId,
    principal::{Grant, Teams, TenantScope},
    purpose::Channel,
    record::{Descriptor, Kind, Party, State},
};

/// One row per role, one column per action, in the order of `Action::ALL`.
const TABLE: &[(&str, &str)] = &[
    //   recording put read, message put batch get batch, record get list update | tenant create get list update | class create list |
    //   key list rotate destroy, root rotate list, signing list, operation get list |
    //   erasure preview request cancel get list, certificate get, sweep run get | tenant suspend resume
    ("uploader", "x.xx......x...x.................."),
    ("reader", ".x..xxxx........................."),
    ("agent", ".x..xxxx........................."),
    ("supervisor", ".x..xxxxx........................"),
    ("tenant-admin", ".........xxxxxx................xx"),
    ("key-admin", "..........xx...xxxxxxxx......xx.."),
    ("compliance", "......xxx.xx..x.....x..xxxxxxxx.."),
    ("dpo", "......xxx.xx..x.....x..x..xxx.x.."),
    ("auditor", "..........xx..xx...xxxx...xxx.x.."),
    ("support", "................................."),
];

fn defaults() -> PolicySet {
    PolicySet::default_set(home()).unwrap()
}

fn home() -> Country {
    "MX".parse().unwrap()
}

fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

fn of(role: Role) -> Principal {
    let scope = TenantScope::Some(BTreeSet::from([tenant()]));
    Principal::new("x", [role], scope)
        .unwrap()
        .from_country(Some(home()))
}

fn record() -> Record {
    let party = |agent: &str, team: &str| Party {
        agent_id: Some(agent.parse().unwrap()),
        team: Some(team.parse().unwrap()),
        ..Party::default()
    };
    let descriptor = Descriptor {
        conversation_id: "conv-1".parse().unwrap(),
        channel: Channel::Voice,
        direction: None,
        start: Timestamp(1),
        duration_millis: None,
        parties: vec![party("a-1", "north"), party("a-2", "south"), Party::default()],
        media_type: "audio/wav".parse().unwrap(),
        languages: vec![],
        labels: Default::default(),
        data_categories: Default::default(),
        allowed_purposes: Purpose::defaults().collect(),
        legal_basis: None,
        notice_version: None,
        consent_ref: None,
        source: None,
        retention_class: "standard".parse().unwrap(),
        age_flag: None,
        jurisdictions: vec![],
        external_id: None,
        derived_from: None,
        incomplete: false,
    };
    Record {
        tenant: tenant(),
        id: RecordId::earliest(Timestamp(1)),
        kind: Kind::Recording,
        state: State::Active,
        descriptor,
        version: 1,
        created: Timestamp(1),
        updated: Timestamp(1),
        size: 1,
        region: "mx".parse().unwrap(),
    }
}

fn decide(set: &PolicySet, principal: &Principal, action: Action, resource: Resource<'_>) -> Decision {
    set.decide(&Ask {
        principal,
        action,
        resource,
        purpose: Some(Purpose::ServiceProvision),
    })
}

/// The default set and one file beside it.
fn with(text: &str) -> Result<PolicySet, PolicyError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("own.cedar"), text).unwrap();
    PolicySet::load(dir.path(), home())
}

#[test]
fn every_role_may_do_what_its_row_says_and_nothing_else() {
    let set = defaults();
    assert_eq!(TABLE.len(), Role::ALL.len());
    for (name, row) in TABLE {
        let principal = of(name.parse().unwrap());
        assert_eq!(row.len(), Action::ALL.len(), "{name}");
        for (action, cell) in Action::ALL.iter().zip(row.chars()) {
            for resource in [Resource::Region, Resource::Tenant(&tenant())] {
                let decision = decide(&set, &principal, *action, resource);
                assert_eq!(decision.allowed, cell == 'x', "{name} {action:?} {decision:?}");
                // Who permitted it is told.
                assert!(
                    !decision.allowed || decision.by == [(*name).to_owned()],
                    "{decision:?}"
                );
            }
        }
    }
}

#[test]
fn nobody_acts_for_a_tenant_that_is_not_his() {
    let set = with(r#"@id("all") permit (principal, action, resource);"#).unwrap();
    let other: TenantId = "other".parse().unwrap();
    for role in Role::ALL {
        for action in Action::ALL {
            let decision = decide(&set, &of(*role), *action, Resource::Tenant(&other));
            assert_eq!(
                (decision.allowed, &*decision.by),
                (false, &["code:tenant-isolation".to_owned()][..])
            );
        }
    }
}

#[test]
fn no_policy_gives_plaintext_to_those_who_never_see_it() {
    let set = with(r#"@id("all") permit (principal, action, resource);"#).unwrap();
    let record = record();
    for role in [
        Role::Dpo,
        Role::KeyAdmin,
        Role::Compliance,
        Role::Auditor,
        Role::TenantAdmin,
        Role::Support,
        Role::Uploader,
    ] {
        for action in [
            Action::ReadRecording,
            Action::GetMessage,
            Action::BatchGetMessages,
        ] {
            for resource in [Resource::Tenant(&tenant()), Resource::Record(&record)] {
                let decision = decide(&set, &of(role), action, resource);
                assert_eq!(decision.by, ["code:never-plaintext"], "{role} {action:?}");
                assert!(!decision.allowed);
            }
        }
        // Also for another tenant than the one where it has the role.
        let grant = |role, tenant: &str| Grant {
            roles: BTreeSet::from([role]),
            scope: TenantScope::Some(BTreeSet::from([tenant.parse().unwrap()])),
        };
        if let Ok(both) =
            Principal::with_grants("x", vec![grant(role, "other"), grant(Role::Support, "acme")])
        {
            assert!(!decide(&set, &both, Action::ReadRecording, Resource::Tenant(&tenant())).allowed);
        }
    }
    assert!(
        decide(&set, &of(Role::Reader), Action::RotateRootEpoch, Resource::Region).allowed,
        "the rest it can give"
    );
}

#[test]
fn an_agent_sees_its_own_calls_and_a_supervisor_the_teams() {
    let (set, record) = (defaults(), record());
    let agent = |id: Option<&str>| of(Role::Agent).at_work_as(id.map(|id| id.parse().unwrap()), Teams::All);
    let supervisor = |teams: Teams| of(Role::Supervisor).at_work_as(Some("a-1".parse().unwrap()), teams);
    let teams = |names: &[&str]| Teams::Some(names.iter().map(|name| name.parse().unwrap()).collect());
    for (principal, sees) in [
        (agent(Some("a-1")), true),
        (agent(Some("a-2")), true),
        (agent(Some("a-3")), false),
        (agent(None), false),
        (supervisor(Teams::All), true),
        (supervisor(teams(&["south", "west"])), true),
        (supervisor(teams(&["west"])), false),
        (supervisor(teams(&[])), false),
    ] {
        for action in [Action::ReadRecording, Action::GetRecord, Action::ListRecords] {
            let decision = decide(&set, &principal, action, Resource::Record(&record));
            assert_eq!(decision.allowed, sees, "{principal:?} {decision:?}");
        }
        let corrects = sees && principal.roles().contains(&Role::Supervisor);
        let decision = decide(&set, &principal, Action::UpdateRecord, Resource::Record(&record));
        assert_eq!(decision.allowed, corrects, "{principal:?}");
    }
}

#[test]
fn a_record_is_for_callers_of_its_own_country() {
    let (set, record) = (defaults(), record());
    for role in [Role::Reader, Role::Compliance, Role::Dpo] {
        for (country, allowed) in [(Some("MX"), true), (Some("US"), false), (None, false)] {
            let principal = of(role).from_country(country.map(|country| country.parse().unwrap()));
            let decision = decide(&set, &principal, Action::GetRecord, Resource::Record(&record));
            assert_eq!(decision.allowed, allowed, "{role} {country:?}");
            assert!(allowed || decision.by == ["home-country"], "{decision:?}");
        }
    }
}

#[test]
fn a_deployment_forbids_and_permits_by_whatever_the_schema_names() {
    let record = record();
    let reader = of(Role::Reader);
    for (text, denied) in [
        (
            r#"when { context has purpose && context.purpose == "ServiceProvision" }"#,
            true,
        ),
        (
            r#"when { context has purpose && context.purpose == "CustomerCare" }"#,
            false,
        ),
        (
            r#"when { resource.kind == "RECORDING" && resource.teams.contains("north") }"#,
            true,
        ),
        (r#"when { resource.retentionClass == "nothing-like-it" }"#, false),
        (r#"when { resource in Tenant::"acme" }"#, true),
        (r#"when { resource in Tenant::"other" }"#, false),
        (r#"unless { principal.strength == "certificate" }"#, false),
        (r#"unless { principal.strength == "bound-token" }"#, true),
        (
            r#"when { resource.state == "RESTRICTED" || resource.incomplete }"#,
            false,
        ),
    ] {
        let text = format!(
            r#"@id("mine") forbid (principal, action in Action::"OpenContent", resource is Record) {text};"#
        );
        let set = with(&text).unwrap();
        let decision = decide(&set, &reader, Action::ReadRecording, Resource::Record(&record));
        assert_eq!(decision.allowed, !denied, "{text}");
        assert!(!denied || decision.by == ["mine"], "{decision:?}");
        assert!(
            decide(&set, &reader, Action::GetRecord, Resource::Record(&record)).allowed,
            "{text}"
        );
    }
    let more = with(r#"@id("auditors-list") permit (principal, action == Action::"ListRecords", resource == Tenant::"acme") when { principal.roles.contains("auditor") };"#).unwrap();
    assert!(more.has_more() && !defaults().has_more());
    let decision = decide(
        &more,
        &of(Role::Auditor),
        Action::ListRecords,
        Resource::Tenant(&tenant()),
    );
    assert_eq!(
        (decision.allowed, &*decision.by),
        (true, &["auditors-list".to_owned()][..])
    );
}

#[test]
fn a_set_with_a_mistake_is_refused_and_says_where() {
    for (text, said) in [
        ("permit (principal, action, resource)", "own.cedar"),
        (r#"permit (principal, action, resource);"#, "@id"),
        (r#"@id("reader") permit (principal, action, resource);"#, "reader"),
        (r#"@id("Ä") permit (principal, action, resource);"#, "@id"),
        (
            r#"@id("a") permit (principal, action == Action::"ReadRecordings", resource);"#,
            "ReadRecordings",
        ),
        (
            r#"@id("a") permit (principal, action, resource) when { principal.role == "reader" };"#,
            "role",
        ),
        (
            r#"@id("a") permit (principal, action, resource is Record) when { resource.country < 7 };"#,
            "schema",
        ),
        (
            r#"@id("a") forbid (principal, action, resource is Record) when { principal.country == "MX" };"#,
            "country",
        ),
        (
            r#"@id("a") permit (principal == ?principal, action, resource);"#,
            "templates",
        ),
    ] {
        let error = with(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join(".hidden.cedar"), "permit").unwrap();
    fs::create_dir(empty.path().join("dir.cedar")).unwrap();
    let error = PolicySet::load(empty.path(), home()).unwrap_err();
    assert!(matches!(error, PolicyError::Empty { .. }), "{error}");
    let nowhere = PolicySet::load(Path::new("/nowhere"), home()).unwrap_err();
    assert!(matches!(nowhere, PolicyError::Unreadable { .. }));
    let long = format!("// {}\n", "x".repeat(BYTES));
    assert!(matches!(with(&long), Err(PolicyError::TooMuch { .. })));
    with("// nothing\n").unwrap();
}

#[test]
fn a_sets_hash_tells_it_from_every_other() {
    let own =
        r#"@id("mine") forbid (principal, action, resource) when { principal.roles.contains("support") };"#;
    let (defaults, mine) = (defaults(), with(own).unwrap());
    assert_eq!(defaults.hash().len(), 64);
    assert_ne!(defaults.hash(), mine.hash());
    assert_eq!(
        mine.hash(),
        with(&format!("// with a comment\n{own}")).unwrap().hash()
    );
    assert_ne!(
        mine.hash(),
        with(&own.replace("support", "auditor")).unwrap().hash()
    );
}

#[test]
fn what_was_decided_before_is_decided_alike_and_for_nobody_else() {
    let naming = r#"@id("not-this-one") forbid (principal, action, resource == Record::"RECORD");"#;
    for (text, names) in [
        (
            "// nothing\n@id(\"x\") forbid (principal, action, resource) when { false };",
            false,
        ),
        (naming, true),
    ] {
        let mut record = record();
        let set = with(&text.replace("RECORD", &record.id.to_string())).unwrap();
        let principals = [
            of(Role::Reader),
            of(Role::Agent),
            of(Role::Compliance),
            of(Role::Reader).from_country(None),
        ]
        .map(Arc::new);
        // Everything is asked twice, in the same order: as it is, and with one thing changed after the other.
        type Change = fn(&mut Record);
        let changes: [Change; 8] = [
            |_| {},
            |r| r.descriptor.parties.clear(),
            |r| r.state = State::Restricted,
            |r| r.descriptor.retention_class = "other".parse().unwrap(),
            |r| r.descriptor.incomplete = true,
            |r| r.descriptor.consent_ref = Some("c-1".parse().unwrap()),
            |r| r.tenant = "other".parse().unwrap(),
            |r| r.id = RecordId::earliest(Timestamp(2_000_000)),
        ];
        for _ in 0..2 {
            for change in changes {
                change(&mut record);
                for principal in &principals {
                    for action in [Action::ReadRecording, Action::GetRecord, Action::UpdateRecord] {
                        for resource in [
                            Resource::Region,
                            Resource::Tenant(&record.tenant),
                            Resource::Record(&record),
                        ] {
                            for purpose in [None, Some(Purpose::CustomerCare)] {
                                let fresh = set.decide(&Ask {
                                    principal,
                                    action,
                                    resource,
                                    purpose,
                                });
                                assert_eq!(set.decide_for(principal, action, resource, purpose), fresh);
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(set.names_records, names);
    }
}
