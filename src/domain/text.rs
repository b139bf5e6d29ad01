//! Short texts with rules: normalised or refused, never guessed.

use std::{fmt, str::FromStr};

use super::{ids::InvalidId, limits};

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The normalised text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    };
}

text_type!(
    /// A telephone number as E.164: a plus sign and 7 to 15 digits.
    Tel
);

impl FromStr for Tel {
    type Err = InvalidId;

    /// Takes E.164 or an RFC 3966 global `tel:` URI without parameters; visual separators are dropped.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId {
            what: "tel",
            rule: "an E.164 number: a plus sign, then 7 to 15 digits beginning with the country code",
        };
        let number = text.strip_prefix("tel:").unwrap_or(text).trim();
        let Some(rest) = number.strip_prefix('+') else {
            return Err(invalid);
        };
        let mut digits = String::with_capacity(16);
        digits.push('+');
        for c in rest.chars() {
            match c {
                '0'..='9' => digits.push(c),
                '-' | '.' | '(' | ')' | ' ' => {}
                _ => return Err(invalid),
            }
        }
        if !(8..=16).contains(&digits.len()) || digits.as_bytes().get(1) == Some(&b'0') {
            return Err(invalid);
        }
        Ok(Self(digits))
    }
}

text_type!(
    /// An e-mail address; its domain in lower case.
    Mailto
);

impl Mailto {
    /// The form that is compared and blinded: all of it in lower case, for no mail system in use tells `Jane` from `jane`.
    pub fn folded(&self) -> String {
        self.0.to_lowercase()
    }
}

impl FromStr for Mailto {
    type Err = InvalidId;

    /// Takes an address or a `mailto:` URI without headers.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId {
            what: "mailto",
            rule: "an e-mail address such as name@example.com",
        };
        let address = text.strip_prefix("mailto:").unwrap_or(text);
        let Some((local, domain)) = address.rsplit_once('@') else {
            return Err(invalid);
        };
        let local_ok = (1..=64).contains(&local.len())
            && !local.contains(['@', '<', '>', ',', '"', '?', '\\'])
            && !local.chars().any(|c| c.is_whitespace() || c.is_control());
        let label_ok = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let domain_ok = domain.len() <= 253 && domain.contains('.') && domain.split('.').all(label_ok);
        if !local_ok || !domain_ok {
            return Err(invalid);
        }
        Ok(Self(format!("{local}@{}", domain.to_ascii_lowercase())))
    }
}

text_type!(
    /// Short free text: at most 256 bytes, no control characters, no surrounding spaces, not empty.
    Text
);

impl FromStr for Text {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let ok = !text.is_empty()
            && text.len() <= limits::TEXT_BYTES
            && text.trim() == text
            && !text.chars().any(char::is_control);
        ok.then(|| Self(text.to_owned())).ok_or(InvalidId {
            what: "text",
            rule: "1 to 256 bytes without control characters or surrounding spaces",
        })
    }
}

text_type!(
    /// A media type (RFC 6838), in lower case, with optional parameters.
    MediaType
);

impl FromStr for MediaType {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let token = |t: &str| {
            !t.is_empty()
                && t.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        let (essence, parameters) = text.split_once(';').map_or((text, None), |(e, p)| (e, Some(p)));
        let essence_ok = essence.split_once('/').is_some_and(|(t, s)| token(t) && token(s));
        let parameters_ok =
            parameters.is_none_or(|p| p.bytes().all(|b| b.is_ascii_graphic() || b == b' ') && !p.is_empty());
        if text.len() > 128 || !essence_ok || !parameters_ok {
            return Err(InvalidId {
                what: "media_type",
                rule: "a media type such as audio/wav, at most 128 bytes",
            });
        }
        Ok(Self(match parameters {
            None => essence.to_ascii_lowercase(),
            Some(p) => format!("{};{p}", essence.to_ascii_lowercase()),
        }))
    }
}

text_type!(
    /// A language tag (BCP 47).
    Language
);

impl FromStr for Language {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut parts = text.split('-');
        let primary = parts
            .next()
            .is_some_and(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphabetic()));
        let rest = parts.all(|p| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()));
        if text.len() > 35 || !primary || !rest {
            return Err(InvalidId {
                what: "languages",
                rule: "a BCP 47 tag such as es-MX",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

text_type!(
    /// A country or its subdivision (ISO 3166-1 alpha-2, ISO 3166-2).
    Jurisdiction
);

impl FromStr for Jurisdiction {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (country, subdivision) = text.split_once('-').map_or((text, None), |(c, s)| (c, Some(s)));
        let country_ok = country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
        let subdivision_ok = subdivision.is_none_or(|s| {
            (1..=3).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        });
        if !country_ok || !subdivision_ok {
            return Err(InvalidId {
                what: "jurisdictions",
                rule: "an ISO 3166 code in upper case such as MX or US-CA",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

text_type!(
    /// A country (ISO 3166-1 alpha-2), in upper case.
    Country
);

impl FromStr for Country {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidId {
            what: "country",
            rule: "two capital letters of ISO 3166-1 such as MX",
        })
    }
}

text_type!(
    /// The key of a label: 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit.
    LabelKey
);

impl FromStr for LabelKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ok = text.len() <= limits::LABEL_KEY_BYTES
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || b"-_.".contains(&b));
        ok.then(|| Self(text.to_owned())).ok_or(InvalidId {
            what: "labels",
            rule: "keyed by 1 to 63 lowercase letters, digits, '-', '_' and '.', beginning with a letter or digit",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_normalised_or_refused() {
        for good in ["+525512345678", "tel:+52-55-1234-5678", "+52 (55) 1234.5678"] {
            assert_eq!(good.parse::<Tel>().unwrap().as_str(), "+525512345678", "{good}");
        }
        for bad in [
            "5512345678",
            "+052551234567",
            "+123",
            "+1234567890123456",
            "+52x5512345678",
            "",
            "+",
        ] {
            assert!(bad.parse::<Tel>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_normalised_or_refused() {
        let jane: Mailto = "mailto:Jane.Doe@Example.COM".parse().unwrap();
        assert_eq!(jane.as_str(), "Jane.Doe@example.com");
        assert_eq!(jane.folded(), "jane.doe@example.com");
        for bad in [
            "jane",
            "@example.com",
            "jane@localhost",
            "a b@example.com",
            "jane@ex_ample.com",
            "a@b@",
        ] {
            assert!(bad.parse::<Mailto>().is_err(), "{bad}");
        }
    }

    #[test]
    fn small_vocabularies_hold() {
        assert!("es-MX".parse::<Language>().is_ok() && "e".parse::<Language>().is_err());
        assert!("US-CA".parse::<Jurisdiction>().is_ok() && "usa".parse::<Jurisdiction>().is_err());
        assert_eq!("Audio/WAV".parse::<MediaType>().unwrap().as_str(), "audio/wav");
        assert!("audio/ogg; codecs=opus".parse::<MediaType>().is_ok());
        for bad in [
            "audio",
            "audio/",
            "/wav",
            "audio/wav;",
            "audio/w av",
            "audio/wav;\u{7}",
        ] {
            assert!(bad.parse::<MediaType>().is_err(), "{bad}");
        }
        assert!("team.eu-1".parse::<LabelKey>().is_ok() && "Team".parse::<LabelKey>().is_err());
        assert!("a\u{0}".parse::<Text>().is_err() && " a".parse::<Text>().is_err());
    }
}
