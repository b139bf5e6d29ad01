//! Tenants and their retention classes.

use std::collections::BTreeSet;

use super::{
    clock::Timestamp,
    ids::{RetentionClassId, TenantId},
    purpose::{LegalBasis, Purpose},
    text::{Jurisdiction, Text},
};

/// What the platform is to a tenant's data. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TenantRole {
    /// Decides on purposes.
    Controller = 1,
    /// Acts for the tenant.
    Processor = 2,
}

/// Where a tenant is in its life. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TenantState {
    /// Served.
    Active = 1,
    /// Not served for now.
    Suspended = 2,
    /// Its keys are gone.
    Shredded = 3,
    /// In grace before the shred: not served.
    PendingShred = 4,
}

impl TenantState {
    /// The state with this stored number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Active, Self::Suspended, Self::Shredded, Self::PendingShred]
            .into_iter()
            .find(|state| *state as u32 == number)
    }
}

/// What an administrator says of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantSettings {
    /// For people.
    pub display_name: Option<Text>,
    /// The legal person that decides.
    pub controller: Option<Text>,
    /// What the platform is to it.
    pub role: Option<TenantRole>,
    /// Used when an upload names none.
    pub default_retention_class: Option<RetentionClassId>,
    /// Used when an upload names none; [`Purpose::defaults`] when empty.
    pub allowed_purposes: BTreeSet<Purpose>,
    /// Whose law applies.
    pub jurisdictions: Vec<Jurisdiction>,
}

/// A tenant as callers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// What was said of it.
    pub settings: TenantSettings,
    /// Where in its life.
    pub state: TenantState,
    /// Version of the settings, from 1.
    pub version: u64,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

impl Tenant {
    /// Changes with every update.
    pub fn etag(&self) -> String {
        self.version.to_string()
    }
}

/// What happens at the end of a retention class's maximum. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RetentionAction {
    /// Destroy the key.
    Shred = 1,
    /// Destroy content and identifiers, keep what names nobody.
    Anonymise = 2,
}

/// How long records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionClass {
    /// Its id within the tenant.
    pub id: RetentionClassId,
    /// Not shredded sooner.
    pub minimum_days: u32,
    /// Due after; never when `None`.
    pub maximum_days: Option<u32>,
    /// What happens then.
    pub action: RetentionAction,
    /// Whose law asks for it.
    pub jurisdiction: Option<Jurisdiction>,
    /// On what ground.
    pub legal_ground: Option<LegalBasis>,
    /// In force from; in what is to be created, 0 stands for its creation.
    pub effective: Timestamp,
    /// When it was created.
    pub created: Timestamp,
}
