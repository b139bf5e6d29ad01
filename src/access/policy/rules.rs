//! What no policy can give. A deployment may forbid more; it may not permit these.

use super::{Ask, Resource};
use crate::domain::principal::{Action, Role};

/// A rule's name, as decisions have it.
pub(super) type Rule = &'static str;

/// Roles that never see plaintext, whatever other roles their holder has. The DPO sees it within a case, which there is none of yet.
const NEVER_PLAINTEXT: &[Role] = &[
    Role::Dpo,
    Role::Uploader,
    Role::TenantAdmin,
    Role::KeyAdmin,
    Role::Compliance,
    Role::Auditor,
    Role::Support,
];

/// The rule that forbids what is asked, if there is one.
pub(super) fn forbidding(ask: &Ask<'_>) -> Option<Rule> {
    if tenant(ask).is_some_and(|tenant| !ask.principal.knows(tenant)) {
        return Some("code:tenant-isolation");
    }
    let roles = ask.principal.roles();
    if opens_content(ask.action) && NEVER_PLAINTEXT.iter().any(|role| roles.contains(role)) {
        return Some("code:never-plaintext");
    }
    None
}

fn tenant<'a>(ask: &Ask<'a>) -> Option<&'a crate::domain::ids::TenantId> {
    match ask.resource {
        Resource::Region => None,
        Resource::Tenant(tenant) => Some(tenant),
        Resource::Record(record) => Some(&record.tenant),
    }
}

fn opens_content(action: Action) -> bool {
    matches!(
        action,
        Action::ReadRecording | Action::GetMessage | Action::BatchGetMessages
    )
}
