//! A decision of the policies, as every call and every record asks for it.
//!
//! ```text
//! cargo bench --bench policy
//! ```

use std::{collections::BTreeSet, hint::black_box, sync::Arc};

use callvault::{
    access::policy::{Ask, PolicySet, Resource},
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        principal::{Action, Principal, Role, Teams, TenantScope},
        purpose::{Channel, Purpose},
        record::{Descriptor, Kind, Party, Record, State},
    },
};
use criterion::{Criterion, criterion_group, criterion_main};

fn decisions(c: &mut Criterion) {
    let home = || "MX".parse().expect("a country");
    let defaults = PolicySet::default_set(home()).expect("the default set");
    let dir = tempfile::tempdir().expect("a directory");
    let own: String = (0..30)
        .map(|number| {
            format!(
                "@id(\"own-{number}\") forbid (principal, action in Action::\"Open\", resource is Record) \
                 when {{ resource.retentionClass == \"class-{number}\" && principal.strength == \"token\" }};\n"
            )
        })
        .collect();
    std::fs::write(dir.path().join("own.cedar"), own).expect("a file");
    let more = PolicySet::load(dir.path(), home()).expect("a set");
    let tenant: TenantId = "acme".parse().expect("a tenant");
    let caller = |role| {
        let scope = TenantScope::Some(BTreeSet::from([tenant.clone()]));
        let principal = Principal::new("caller", [role], scope).expect("a principal");
        let teams = Teams::Some(["north".parse().expect("a team")].into());
        principal
            .from_country(Some(home()))
            .at_work_as("a-7".parse().ok(), teams)
    };
    let record = record(&tenant);
    let mut ask = |name: &str, set: &PolicySet, role, action, resource: Resource<'_>| {
        let principal = caller(role);
        let ask = Ask {
            principal: &principal,
            action,
            resource,
            purpose: Some(Purpose::ServiceProvision),
        };
        assert!(set.decide(&ask).allowed, "{name}");
        c.bench_function(&format!("{name}, for the first time"), |b| {
            b.iter(|| black_box(set.decide(black_box(&ask))));
        });
        let principal = Arc::new(principal.clone());
        c.bench_function(name, |b| {
            b.iter(|| black_box(set.decide_for(&principal, action, black_box(resource), ask.purpose)));
        });
    };
    let on_tenant = Resource::Tenant(&tenant);
    ask(
        "gate 1, uploader",
        &defaults,
        Role::Uploader,
        Action::PutRecording,
        on_tenant,
    );
    ask(
        "gate 1, reader",
        &defaults,
        Role::Reader,
        Action::ReadRecording,
        on_tenant,
    );
    let on_record = Resource::Record(&record);
    ask(
        "gate 2, reader",
        &defaults,
        Role::Reader,
        Action::ReadRecording,
        on_record,
    );
    ask(
        "gate 2, agent",
        &defaults,
        Role::Agent,
        Action::ReadRecording,
        on_record,
    );
    ask(
        "gate 2, reader, 30 policies more",
        &more,
        Role::Reader,
        Action::ReadRecording,
        on_record,
    );
}

fn record(tenant: &TenantId) -> Record {
    let party = |agent: &str, team: &str| Party {
        agent_id: agent.parse().ok(),
        team: team.parse().ok(),
        ..Party::default()
    };
    let text = "a constant";
    Record {
        tenant: tenant.clone(),
        id: RecordId::earliest(Timestamp(1)),
        kind: Kind::Recording,
        state: State::Active,
        descriptor: Descriptor {
            conversation_id: "conv-1".parse().expect(text),
            channel: Channel::Voice,
            direction: None,
            start: Timestamp(1),
            duration_millis: None,
            parties: vec![party("a-7", "north"), Party::default()],
            media_type: "audio/wav".parse().expect(text),
            languages: vec![],
            labels: Default::default(),
            data_categories: BTreeSet::new(),
            allowed_purposes: Purpose::defaults().collect(),
            legal_basis: None,
            notice_version: None,
            consent_ref: None,
            source: None,
            retention_class: "standard".parse().expect(text),
            age_flag: None,
            jurisdictions: vec![],
            external_id: None,
            derived_from: None,
            incomplete: false,
        },
        version: 1,
        created: Timestamp(1),
        updated: Timestamp(1),
        size: 1,
        region: "mx".parse().expect(text),
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
