//! Tenants and retention classes.

use callvault::{domain::principal::Role, proto::v1::*};
use prost_types::FieldMask;

use crate::harness::*;

/// A change that makes something malformed, and the field at fault.
type Case<'a, T> = (&'a dyn Fn(&mut T), &'a str);

fn create(id: &str) -> CreateTenantRequest {
    CreateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: id.to_owned(),
            display_name: "Name".to_owned(),
            role: TenantRole::Processor.into(),
            jurisdictions: vec!["MX".to_owned()],
            ..Default::default()
        }),
        request_id: String::new(),
    }
}

fn update(tenant: Tenant, paths: &[&str]) -> UpdateTenantRequest {
    UpdateTenantRequest {
        tenant_id: TENANT.to_owned(),
        tenant: Some(tenant),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        }),
        ..Default::default()
    }
}

fn class(id: &str) -> RetentionClass {
    RetentionClass {
        retention_class_id: id.to_owned(),
        minimum_days: 10,
        maximum_days: 20,
        action: RetentionAction::Shred.into(),
        ..Default::default()
    }
}

fn create_class(class: RetentionClass) -> CreateRetentionClassRequest {
    CreateRetentionClassRequest {
        tenant_id: TENANT.to_owned(),
        retention_class: Some(class),
        request_id: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_made_shown_changed_and_made_once() {
    let world = World::start().await;
    let admin = world.client(Role::TenantAdmin).await;
    let made = admin.create_tenant(create("acme")).await.unwrap();
    assert_eq!(
        (made.display_name.as_str(), made.state()),
        ("Name", TenantState::Active)
    );
    assert_eq!(admin.get_tenant("acme").await.unwrap(), made);
    assert_eq!(why(admin.create_tenant(create("acme")).await).0, "TENANT_EXISTS");
    let mut request = update(
        Tenant {
            display_name: "Other".to_owned(),
            ..Default::default()
        },
        &["display_name", "controller"],
    );
    request.etag = admin.get_tenant(TENANT).await.unwrap().etag;
    let changed = admin.update_tenant(request.clone()).await.unwrap();
    assert_eq!(
        (
            changed.display_name.as_str(),
            changed.default_retention_class.as_str()
        ),
        ("Other", "standard")
    );
    let late = admin.update_tenant(request).await;
    assert_eq!(late.unwrap_err().code(), Some(tonic::Code::Aborted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_creation_is_the_same_one() {
    let world = World::start().await;
    let admin = world.client(Role::TenantAdmin).await;
    let mut request = create("acme");
    request.request_id = "r1".to_owned();
    let made = admin.create_tenant(request.clone()).await.unwrap();
    assert_eq!(admin.create_tenant(request).await.unwrap(), made);
    let mut request = create_class(class("short"));
    request.request_id = "r2".to_owned();
    let made = admin.create_retention_class(request.clone()).await.unwrap();
    assert!(made.effective_time.is_some() && made.effective_time == made.create_time);
    assert_eq!(admin.create_retention_class(request).await.unwrap(), made);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_tenants_are_refused_by_their_field() {
    let world = World::start().await;
    let admin = world.client(Role::TenantAdmin).await;
    let cases: [Case<'_, Tenant>; 6] = [
        (&|t| t.tenant_id = "Acme/..".to_owned(), "tenant.tenant_id"),
        (&|t| t.display_name = "a\u{0}".to_owned(), "tenant.display_name"),
        (
            &|t| t.default_retention_class = "x".to_owned(),
            "tenant.default_retention_class",
        ),
        (&|t| t.allowed_purposes = vec![1, 0], "tenant.allowed_purposes[1]"),
        (
            &|t| t.jurisdictions = vec!["MX".to_owned(), "mexico".to_owned()],
            "tenant.jurisdictions[1]",
        ),
        (
            &|t| t.jurisdictions = vec!["MX".to_owned(); 33],
            "tenant.jurisdictions",
        ),
    ];
    for (change, field) in cases {
        let mut request = create("acme");
        change(request.tenant.as_mut().unwrap());
        assert_eq!(
            why(admin.create_tenant(request).await),
            is("INVALID_FIELD", field)
        );
    }
    let none = admin.create_tenant(CreateTenantRequest::default()).await;
    assert_eq!(why(none), is("INVALID_FIELD", "tenant"));
    for (paths, field) in [
        (&[][..], "update_mask"),
        (&["display_name", "tenant_id"], "update_mask.paths[1]"),
        (&["*"], "update_mask.paths[0]"),
        (&["tenant.display_name"], "update_mask.paths[0]"),
    ] {
        let answer = admin.update_tenant(update(Tenant::default(), paths)).await;
        assert_eq!(why(answer), is("INVALID_FIELD", field));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_retention_classes_are_refused_by_their_field() {
    let world = World::start().await;
    let admin = world.client(Role::TenantAdmin).await;
    let cases: [Case<'_, RetentionClass>; 7] = [
        (
            &|c| c.retention_class_id = String::new(),
            "retention_class.retention_class_id",
        ),
        (&|c| c.minimum_days = -1, "retention_class.minimum_days"),
        (&|c| c.maximum_days = 9, "retention_class.maximum_days"),
        (&|c| c.maximum_days = i32::MAX, "retention_class.maximum_days"),
        (&|c| c.action = 0, "retention_class.action"),
        (
            &|c| c.jurisdiction = "x".to_owned(),
            "retention_class.jurisdiction",
        ),
        (
            &|c| c.effective_time = Some(at(i64::MAX)),
            "retention_class.effective_time",
        ),
    ];
    for (change, field) in cases {
        let mut class = class("short");
        change(&mut class);
        let answer = admin.create_retention_class(create_class(class)).await;
        assert_eq!(why(answer), is("INVALID_FIELD", field));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_what_is_in_scope_once_page_by_page() {
    let plan = Plan {
        identities: scoped(Role::KeyAdmin, &["a1", "a3", TENANT, "nobody"]),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let admin = world.client(Role::TenantAdmin).await;
    for id in ["a1", "a2", "a3"] {
        admin.create_tenant(create(id)).await.unwrap();
    }
    let scoped = world.client(Role::KeyAdmin).await;
    for (client, expected) in [
        (&admin, &["a1", "a2", "a3", "dev", "other"][..]),
        (&scoped, &["a1", "a3", "dev"]),
    ] {
        for page_size in [0, 1, 2, 1000] {
            let mut request = ListTenantsRequest {
                page_size,
                ..Default::default()
            };
            let mut seen = Vec::new();
            loop {
                let page = client.list_tenants(request.clone()).await.unwrap();
                seen.extend(page.tenants.into_iter().map(|t| t.tenant_id));
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(seen, expected, "{page_size}");
        }
    }
    for (page_size, token, field) in [
        (-1, "", "page_size"),
        (1001, "", "page_size"),
        (0, "!", "page_token"),
    ] {
        let request = ListTenantsRequest {
            page_size,
            page_token: token.to_owned(),
        };
        assert_eq!(why(admin.list_tenants(request).await), is("INVALID_FIELD", field));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_classes_are_listed_by_id() {
    let world = World::start().await;
    let admin = world.client(Role::TenantAdmin).await;
    for id in ["b", "a"] {
        admin
            .create_retention_class(create_class(class(id)))
            .await
            .unwrap();
    }
    let taken = admin.create_retention_class(create_class(class("a"))).await;
    assert_eq!(why(taken).0, "RETENTION_CLASS_EXISTS");
    let mut request = ListRetentionClassesRequest {
        tenant_id: TENANT.to_owned(),
        page_size: 2,
        ..Default::default()
    };
    let first = admin.list_retention_classes(request.clone()).await.unwrap();
    request.page_token = first.next_page_token;
    let second = admin.list_retention_classes(request).await.unwrap();
    let ids = first.retention_classes.iter().chain(&second.retention_classes);
    let ids: Vec<_> = ids.map(|c| c.retention_class_id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "standard"]);
}
