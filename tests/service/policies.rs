//! A deployment's own policies, and what agents and supervisors see.

use callvault::{
    access::policy::PolicySet,
    client::Client,
    domain::principal::Role,
    proto::v1::{get_record_request::Name, *},
};
use tonic::Code;

use crate::harness::*;

/// The default set, and these.
fn own(text: &str) -> PolicySet {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("own.cedar"), text).unwrap();
    PolicySet::load(dir.path(), "MX".parse().unwrap()).unwrap()
}

async fn read(client: &Client, record: &Record) -> Result<Vec<u8>, (Option<Code>, String)> {
    let refused =
        |error: callvault::client::ClientError| (error.code(), error.reason().unwrap_or_default().to_owned());
    let mut download = client
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .map_err(refused)?;
    let mut got = Vec::new();
    while let Some(bytes) = download.next().await.map_err(refused)? {
        got.extend_from_slice(&bytes);
    }
    Ok(got)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployments_policies_are_asked_at_every_call_and_counted_from_the_next_one_on() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let reader = world.client(Role::Reader).await;
    assert_eq!(read(&reader, &record).await.unwrap(), b"content");
    let no_reading = r#"@id("no-reading") forbid (principal, action in Action::"OpenContent", resource is Record)
        when { resource.kind == "RECORDING" } unless { principal.strength != "certificate" };"#;
    world.callers.judge_by(own(no_reading));
    let refused = (Some(Code::PermissionDenied), "POLICY_DENIED".to_owned());
    assert_eq!(read(&reader, &record).await.unwrap_err(), refused);
    // Not what it says nothing of.
    let id = Name::RecordId(record.record_id.clone());
    reader.get_record(TENANT, id).await.unwrap();
    // Nobody is let in by a policy who is kept out by the code.
    world
        .callers
        .judge_by(own(r#"@id("all") permit (principal, action, resource);"#));
    assert_eq!(read(&reader, &record).await.unwrap(), b"content");
    let key_admin = world.client(Role::KeyAdmin).await;
    let denied = (Some(Code::PermissionDenied), "ROLE_DENIED".to_owned());
    assert_eq!(read(&key_admin, &record).await.unwrap_err(), denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_that_forbids_is_named_with_its_set() {
    let policies = own(
        r#"@id("not-acme") forbid (principal, action == Action::"GetTenant", resource == Tenant::"dev");"#,
    );
    let hash = policies.hash().to_string();
    let plan = Plan {
        policies: Some(policies),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let admin = world.client(Role::TenantAdmin).await;
    let error = admin.get_tenant(TENANT).await.unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!(
        (refusal.code, &*refusal.reason),
        (Code::PermissionDenied, "POLICY_DENIED")
    );
    assert_eq!(refusal.details["policy"], "not-acme");
    assert_eq!(refusal.details["policy_set"], hash);
    admin.get_tenant(OTHER).await.unwrap();
}

fn correct(record: &Record, descriptor: Descriptor, path: &str) -> UpdateRecordRequest {
    UpdateRecordRequest {
        tenant_id: TENANT.to_owned(),
        record_id: record.record_id.clone(),
        descriptor: Some(descriptor),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![path.to_owned()],
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_corrects_its_teams_calls_and_opens_nothing_to_itself_by_it() {
    let (world, bearers) = World::of_bearers().await;
    let of_team = |team: &str| Descriptor {
        parties: vec![Party {
            role: PartyRole::Agent.into(),
            team: team.to_owned(),
            ..Default::default()
        }],
        external_id: format!("call-of-{team}"),
        ..descriptor()
    };
    let (mine, other) = (
        world.put(of_team(BEARER_TEAM), "mine").await,
        world.put(of_team("south"), "other").await,
    );
    let child = Descriptor {
        age_flag: AgeFlag::Child.into(),
        ..of_team(BEARER_TEAM)
    };
    let child = Descriptor {
        external_id: String::new(),
        ..child
    };
    let restricted = world.put(child, "restricted").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bearers.token(Role::Supervisor, "home", false)).unwrap();
    let supervisor = world.bearing(file.path()).await;
    let labelled = || Descriptor {
        labels: [("seen".to_owned(), "yes".to_owned())].into(),
        ..Default::default()
    };
    supervisor
        .update_record(correct(&mine, labelled(), "labels"))
        .await
        .unwrap();
    let refused = supervisor
        .update_record(correct(&other, labelled(), "labels"))
        .await
        .unwrap_err();
    assert_eq!(refused.reason(), Some("RECORD_DENIED"));
    let id = Name::RecordId(other.record_id.clone());
    let refused = supervisor.get_record(TENANT, id).await.unwrap_err();
    assert_eq!(refused.reason(), Some("RECORD_DENIED"));
    // A name that anybody may guess tells nothing.
    let guessed = Name::ExternalId("call-of-south".to_owned());
    let refused = supervisor.get_record(TENANT, guessed).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::NotFound));
    for (record, change, path) in [
        (&restricted, Descriptor::default(), "age_flag"),
        (
            &mine,
            Descriptor {
                allowed_purposes: vec![Purpose::DirectMarketing.into()],
                ..Default::default()
            },
            "allowed_purposes",
        ),
    ] {
        let refused = supervisor
            .update_record(correct(record, change.clone(), path))
            .await
            .unwrap_err();
        assert_eq!(refused.reason(), Some("CORRECTION_DENIED"), "{path}");
        let compliance = world.client(Role::Compliance).await;
        compliance
            .update_record(correct(record, change, path))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_opens_nothing_that_a_policy_keeps_closed() {
    let no_minors = r#"@id("no-minors") forbid (principal, action in Action::"OpenContent", resource is Record)
        when { resource has age && resource.age == "MINOR" };"#;
    let plan = Plan {
        policies: Some(own(no_minors)),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let minor = Descriptor {
        age_flag: AgeFlag::Minor.into(),
        ..descriptor()
    };
    let record = world.put(minor, "content").await;
    let supervisor = world.client(Role::Supervisor).await;
    let refused = (Some(Code::PermissionDenied), "POLICY_DENIED".to_owned());
    assert_eq!(read(&supervisor, &record).await.unwrap_err(), refused);
    let adult = Descriptor {
        age_flag: AgeFlag::Adult.into(),
        ..Default::default()
    };
    let change = correct(&record, adult, "age_flag");
    let denied = supervisor.update_record(change.clone()).await.unwrap_err();
    assert_eq!(denied.reason(), Some("CORRECTION_DENIED"));
    let compliance = world.client(Role::Compliance).await;
    compliance.update_record(change).await.unwrap();
    assert_eq!(read(&supervisor, &record).await.unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_may_not_be_told_alone_is_in_no_listing() {
    let policies = own(
        r#"@id("not-dev") forbid (principal, action in [Action::"GetTenant", Action::"ListTenants"], resource == Tenant::"dev");"#,
    );
    let plan = Plan {
        policies: Some(policies),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let admin = world.client(Role::TenantAdmin).await;
    let listed = admin.list_tenants(ListTenantsRequest::default()).await.unwrap();
    let ids: Vec<_> = listed
        .tenants
        .iter()
        .map(|tenant| tenant.tenant_id.as_str())
        .collect();
    assert_eq!(ids, [OTHER]);
    // What is no tenant's has its gate all the same.
    let support = world.client(Role::Support).await;
    let refused = support.list_signing_keys().await.unwrap_err();
    assert_eq!(refused.reason(), Some("ROLE_DENIED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_on_purposes_is_asked_where_the_purpose_is_known() {
    let only_care = r#"@id("only-care") forbid (principal, action in Action::"OpenContent", resource)
        unless { context has purpose && context.purpose == "CustomerCare" };"#;
    let plan = Plan {
        policies: Some(own(only_care)),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let record = world.put(descriptor(), "content").await;
    let reader = world.client(Role::Reader).await;
    let refused = (Some(Code::PermissionDenied), "POLICY_DENIED".to_owned());
    assert_eq!(read(&reader, &record).await.unwrap_err(), refused);
    let care = reader.for_purpose("CustomerCare").unwrap();
    assert_eq!(read(&care, &record).await.unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_out_of_scope_cannot_be_made() {
    let plan = Plan {
        identities: scoped(Role::TenantAdmin, &[TENANT]),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let admin = world.client(Role::TenantAdmin).await;
    let request = CreateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: "new".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        admin.create_tenant(request).await.unwrap_err().code(),
        Some(Code::NotFound)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_has_what_each_may_see() {
    let (world, bearers) = World::of_bearers().await;
    let about = |agent: &str, team: &str| Descriptor {
        parties: vec![Party {
            role: PartyRole::Agent.into(),
            agent_id: agent.to_owned(),
            team: team.to_owned(),
            ..Default::default()
        }],
        ..descriptor()
    };
    for number in 0..12 {
        let agent = if number % 3 == 0 { BEARER_AGENT } else { "a-1" };
        let team = if number % 2 == 0 { BEARER_TEAM } else { "south" };
        world.put(about(agent, team), "content").await;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    for (role, sees) in [(Role::Reader, 12), (Role::Agent, 4), (Role::Supervisor, 6)] {
        std::fs::write(file.path(), bearers.token(role, "home", false)).unwrap();
        let client = world.bearing(file.path()).await;
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let page = client
                .list_records(ListRecordsRequest {
                    tenant_id: TENANT.to_owned(),
                    page_size: 5,
                    page_token: token,
                    ..Default::default()
                })
                .await
                .unwrap();
            found.extend(page.records);
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(found.len(), sees, "{role}");
        for record in &found {
            assert_eq!(read(&client, record).await.unwrap(), b"content", "{role}");
        }
    }
}
