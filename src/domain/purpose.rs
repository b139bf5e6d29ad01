//! Purposes, legal bases and other terms of the W3C Data Privacy Vocabulary 2.x.
//!
//! The numbers are stored and sent: they never change.

use super::ids::InvalidId;

macro_rules! terms {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $number:literal => $term:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $number),*
        }

        impl $name {
            /// Every term, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stored number.
            pub fn number(self) -> u32 {
                self as u32
            }

            /// The term as it is written, without its vocabulary's prefix.
            pub fn term(self) -> &'static str {
                match self {
                    $(Self::$variant => $term),*
                }
            }

            /// The term with this stored number.
            pub fn from_number(number: u32) -> Option<Self> {
                Self::ALL.iter().copied().find(|t| t.number() == number)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::ALL.iter().copied().find(|t| t.term() == text).ok_or(InvalidId {
                    what: $what,
                    rule: concat!("one of the vocabulary's terms: ", $($term, " "),*),
                })
            }
        }
    };
}

terms!(
    /// Why personal data is read (`dpv:Purpose`).
    Purpose, "purpose" {
        /// The platform's service itself.
        ServiceProvision = 1 => "ServiceProvision",
        /// Answering and helping customers.
        CustomerCare = 2 => "CustomerCare",
        /// How the service is used.
        ServiceUsageAnalytics = 3 => "ServiceUsageAnalytics",
        /// Billing.
        PaymentManagement = 4 => "PaymentManagement",
        /// Marketing: off unless allowed by name.
        DirectMarketing = 5 => "DirectMarketing",
        /// What the law requires.
        LegalCompliance = 6 => "LegalCompliance",
        /// Claims and complaints.
        DisputeManagement = 7 => "DisputeManagement",
        /// Quality of agents' work.
        PersonnelPerformanceMonitoring = 8 => "PersonnelPerformanceMonitoring",
        /// Fraud.
        FraudPreventionAndDetection = 9 => "FraudPreventionAndDetection",
        /// Rights of the people concerned.
        RightsFulfilment = 10 => "RightsFulfilment",
        /// `callvault:ModelTraining`: off unless allowed by name.
        ModelTraining = 11 => "ModelTraining",
    }
);

impl Purpose {
    /// What a record may be read for when neither upload nor tenant says: everything but marketing and training.
    pub fn defaults() -> impl Iterator<Item = Self> {
        Self::ALL
            .iter()
            .copied()
            .filter(|p| !matches!(p, Self::DirectMarketing | Self::ModelTraining))
    }
}

terms!(
    /// Why processing is lawful (`dpv:LegalBasis`).
    LegalBasis, "legal_basis" {
        /// Consent.
        Consent = 1 => "Consent",
        /// A contract with the person.
        ContractPerformance = 2 => "ContractPerformance",
        /// A law.
        LegalObligation = 3 => "LegalObligation",
        /// Somebody's life.
        VitalInterest = 4 => "VitalInterest",
        /// A public task.
        PublicInterest = 5 => "PublicInterest",
        /// The controller's legitimate interest.
        LegitimateInterestOfController = 6 => "LegitimateInterestOfController",
    }
);

terms!(
    /// Kinds of personal data (`dpv-pd`).
    DataCategory, "data_categories" {
        /// Any communication.
        Communication = 1 => "Communication",
        /// A recorded voice.
        VoiceCommunicationRecording = 2 => "VoiceCommunicationRecording",
        /// A telephone number.
        TelephoneNumber = 3 => "TelephoneNumber",
        /// An e-mail address.
        EmailAddress = 4 => "EmailAddress",
        /// A name.
        Name = 5 => "Name",
        /// Money.
        Financial = 6 => "Financial",
        /// Health.
        MedicalHealth = 7 => "MedicalHealth",
        /// A body's measure.
        Biometric = 8 => "Biometric",
        /// A place.
        Location = 9 => "Location",
        /// Behaviour.
        Behavioral = 10 => "Behavioral",
        /// Anything that identifies.
        Identifying = 11 => "Identifying",
    }
);

terms!(
    /// How people talked.
    Channel, "channel" {
        /// A telephone call.
        Voice = 1 => "VOICE",
        /// A video call.
        Video = 2 => "VIDEO",
        /// A text message.
        Sms = 3 => "SMS",
        /// WhatsApp.
        Whatsapp = 4 => "WHATSAPP",
        /// E-mail.
        Email = 5 => "EMAIL",
        /// A chat on a site or in an app.
        Chat = 6 => "CHAT",
        /// A social network.
        Social = 7 => "SOCIAL",
        /// Anything else.
        Other = 8 => "OTHER",
    }
);

terms!(
    /// Who began it.
    Direction, "direction" {
        /// The customer.
        Inbound = 1 => "INBOUND",
        /// The business.
        Outbound = 2 => "OUTBOUND",
        /// Within the business.
        Internal = 3 => "INTERNAL",
    }
);

terms!(
    /// What a party is.
    PartyRole, "role" {
        /// The business's customer.
        Customer = 1 => "CUSTOMER",
        /// Who serves them.
        Agent = 2 => "AGENT",
        /// Who listens in or takes over.
        Supervisor = 3 => "SUPERVISOR",
        /// A machine.
        Bot = 4 => "BOT",
        /// Anybody else.
        Other = 5 => "OTHER",
    }
);

terms!(
    /// What is known of the age of the people in a record.
    AgeFlag, "age_flag" {
        /// All are adults.
        Adult = 1 => "ADULT",
        /// Someone is a minor of 13 years or more.
        Minor = 2 => "MINOR",
        /// Someone is under 13: restricted at once.
        Child = 3 => "CHILD",
    }
);
