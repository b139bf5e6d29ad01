//! What is asked, in Cedar's words. Built for every decision: a caller, a tenant or a record, and the action with its groups.

use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression as Value,
};

use super::{Ask, Resource, SCHEMA, role_names};
use crate::domain::{
    principal::{Action, Role, Teams},
    record::{Record, State},
    text::{Country, Text},
};

/// Names that are looked up once.
pub(super) struct Vocabulary {
    caller: EntityTypeName,
    tenant: EntityTypeName,
    record: EntityTypeName,
    region: EntityUid,
    /// Each action with the groups that it is in.
    actions: HashMap<Action, Entity>,
    home: Country,
}

impl Vocabulary {
    pub(super) fn new(home: Country) -> Result<Self, String> {
        let named = |name: &str| name.parse::<EntityTypeName>().map_err(|error| error.to_string());
        let (schema, _) =
            cedar_policy::Schema::from_cedarschema_str(SCHEMA).map_err(|error| error.to_string())?;
        let known = schema.action_entities().map_err(|error| error.to_string())?;
        let mut actions = HashMap::new();
        for action in Action::ALL {
            let uid = uid(&named("Action")?, &format!("{action:?}"));
            let groups = known
                .ancestors(&uid)
                .ok_or_else(|| format!("the schema has no action {action:?}"))?;
            let groups: HashSet<EntityUid> = groups.cloned().collect();
            actions.insert(*action, Entity::new_no_attrs(uid, groups));
        }
        Ok(Self {
            caller: named("Caller")?,
            tenant: named("Tenant")?,
            record: named("Record")?,
            region: uid(&named("Region")?, "region"),
            actions,
            home,
        })
    }

    /// Nothing if it cannot be said, which is a fault of this program: then nothing is allowed.
    pub(super) fn request(&self, ask: &Ask<'_>) -> Option<(Request, Entities)> {
        let action = self.actions.get(&ask.action)?;
        let caller = uid(&self.caller, ask.principal.alias());
        let roles = match ask.resource {
            Resource::Region => ask.principal.roles(),
            Resource::Tenant(tenant) => ask.principal.roles_for(tenant),
            Resource::Record(record) => ask.principal.roles_for(&record.tenant),
        };
        let mut entities = vec![action.clone(), self.caller(&caller, ask, &roles)?];
        let resource = match ask.resource {
            Resource::Region => self.region.clone(),
            Resource::Tenant(tenant) => {
                let tenant = uid(&self.tenant, tenant.as_str());
                entities.push(self.in_region(&tenant));
                tenant
            }
            Resource::Record(record) => {
                let tenant = uid(&self.tenant, record.tenant.as_str());
                entities.push(self.in_region(&tenant));
                let id = uid(&self.record, &record.id.to_string());
                entities.push(self.record(&id, record, tenant)?);
                id
            }
        };
        let purpose = ask
            .purpose
            .map(|purpose| ("purpose".to_owned(), text(purpose.term())));
        let context = Context::from_pairs(purpose).ok()?;
        let request = Request::new(caller, action.uid(), resource, context, None).ok()?;
        Some((request, Entities::from_entities(entities, None).ok()?))
    }

    fn in_region(&self, tenant: &EntityUid) -> Entity {
        Entity::new_no_attrs(tenant.clone(), HashSet::from([self.region.clone()]))
    }

    fn caller(&self, id: &EntityUid, ask: &Ask<'_>, roles: &BTreeSet<Role>) -> Option<Entity> {
        let principal = ask.principal;
        let (teams, all_teams) = match principal.teams() {
            Teams::All => (Value::new_set([]), true),
            Teams::Some(teams) => (texts(teams), false),
        };
        let mut known = HashMap::from([
            (
                "roles".to_owned(),
                Value::new_set(role_names(roles).map(Value::new_string)),
            ),
            ("strength".to_owned(), text(principal.strength().name())),
            ("teams".to_owned(), teams),
            ("allTeams".to_owned(), Value::new_bool(all_teams)),
        ]);
        if let Some(country) = principal.country() {
            known.insert("country".to_owned(), text(country.as_str()));
        }
        if let Some(agent) = principal.agent() {
            known.insert("agent".to_owned(), text(agent.as_str()));
        }
        Entity::new(id.clone(), known, HashSet::new()).ok()
    }

    fn record(&self, id: &EntityUid, record: &Record, tenant: EntityUid) -> Option<Entity> {
        let about = &record.descriptor;
        let parties = || about.parties.iter();
        let mut known = HashMap::from([
            (
                "hasConsent".to_owned(),
                Value::new_bool(about.consent_ref.is_some()),
            ),
            (
                "hasNotice".to_owned(),
                Value::new_bool(about.notice_version.is_some()),
            ),
            (
                "jurisdictions".to_owned(),
                Value::new_set(about.jurisdictions.iter().map(|one| text(one.as_str()))),
            ),
            (
                "dataCategories".to_owned(),
                Value::new_set(about.data_categories.iter().map(|one| text(one.term()))),
            ),
            ("kind".to_owned(), text(kind(record))),
            ("state".to_owned(), text(state(record.state))),
            (
                "purposes".to_owned(),
                Value::new_set(about.allowed_purposes.iter().map(|purpose| text(purpose.term()))),
            ),
            ("country".to_owned(), text(self.home.as_str())),
            (
                "agents".to_owned(),
                texts(parties().filter_map(|party| party.agent_id.as_ref())),
            ),
            (
                "teams".to_owned(),
                texts(parties().filter_map(|party| party.team.as_ref())),
            ),
            ("retentionClass".to_owned(), text(about.retention_class.as_str())),
            ("incomplete".to_owned(), Value::new_bool(about.incomplete)),
        ]);
        if let Some(basis) = about.legal_basis {
            known.insert("legalBasis".to_owned(), text(basis.term()));
        }
        if let Some(age) = about.age_flag {
            known.insert("age".to_owned(), text(age.term()));
        }
        Entity::new(id.clone(), known, HashSet::from([tenant])).ok()
    }
}

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

fn text(text: &str) -> Value {
    Value::new_string(text.to_owned())
}

fn texts<'a>(texts: impl IntoIterator<Item = &'a Text>) -> Value {
    Value::new_set(texts.into_iter().map(|one| text(one.as_str())))
}

fn kind(record: &Record) -> &'static str {
    use crate::domain::record::Kind;
    match record.kind {
        Kind::Recording => "RECORDING",
        Kind::Message => "MESSAGE",
        Kind::Artifact => "ARTIFACT",
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Active => "ACTIVE",
        State::Restricted => "RESTRICTED",
        State::Blocked => "BLOCKED",
        State::PendingShred => "PENDING_SHRED",
        State::Shredded => "SHREDDED",
    }
}
