//! What a customer's attributes may hold: the one place for their limits.

use jiff::civil::Date;

use crate::{Documents, Profile};

/// An attribute of a customer, or an image, that can be written by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // their names say it
pub enum Field {
    FirstName,
    LastName,
    Address,
    City,
    State,
    Zip,
    DateOfBirth,
    Phone,
    Reference,
    Front,
    Back,
}

impl Field {
    /// Every field there is.
    pub const ALL: [Self; 11] = [
        Self::FirstName,
        Self::LastName,
        Self::Address,
        Self::City,
        Self::State,
        Self::Zip,
        Self::DateOfBirth,
        Self::Phone,
        Self::Reference,
        Self::Front,
        Self::Back,
    ];

    /// The field's name in the contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstName => "first_name",
            Self::LastName => "last_name",
            Self::Address => "address",
            Self::City => "city",
            Self::State => "state",
            Self::Zip => "zip",
            Self::DateOfBirth => "date_of_birth",
            Self::Phone => "phone",
            Self::Reference => "reference",
            Self::Front => "documents.front",
            Self::Back => "documents.back",
        }
    }
}

/// A field holds what it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {} is invalid", .0.name())]
pub struct InvalidField(pub Field);

/// Checks the attributes and the reference of a customer: at most so many characters, none of them a control
/// character, and a date of birth that is a date. The email is not looked at: an [`crate::Email`] is valid.
///
/// # Errors
/// [`InvalidField`] with the first attribute at fault.
pub fn check(profile: &Profile, reference: &str) -> Result<(), InvalidField> {
    for (name, value, most) in [
        (Field::FirstName, &*profile.first_name, 200),
        (Field::LastName, &*profile.last_name, 200),
        (Field::Address, &*profile.address, 200),
        (Field::City, &*profile.city, 100),
        (Field::State, &*profile.state, 100),
        (Field::Zip, &*profile.zip, 16),
        (Field::DateOfBirth, &*profile.date_of_birth, 8),
        (Field::Phone, &*profile.phone, 32),
        (Field::Reference, reference, 128),
    ] {
        if value.chars().count() > most || value.chars().any(char::is_control) {
            return Err(InvalidField(name));
        }
    }
    let born = &profile.date_of_birth;
    if !born.is_empty() && !is_date(born) {
        return Err(InvalidField(Field::DateOfBirth));
    }
    Ok(())
}

/// Checks the images of a document: each JPEG, PNG, WebP, HEIC or PDF by its first bytes, and at most `most` bytes.
///
/// # Errors
/// [`InvalidField`] with the first image at fault.
pub fn check_documents(documents: &Documents, most: usize) -> Result<(), InvalidField> {
    for (name, image) in [(Field::Front, &documents.front), (Field::Back, &documents.back)] {
        if !image.is_empty() && (image.len() > most || extension(image).is_none()) {
            return Err(InvalidField(name));
        }
    }
    Ok(())
}

/// How the name of a file with this content ends; none unless it is of a kind that a document may be.
pub fn extension(content: &[u8]) -> Option<&'static str> {
    use infer::{archive::is_pdf, image};

    match content {
        _ if image::is_jpeg(content) => Some("jpg"),
        _ if image::is_png(content) => Some("png"),
        _ if image::is_webp(content) => Some("webp"),
        _ if image::is_heif(content) => Some("heic"),
        _ if is_pdf(content) => Some("pdf"),
        _ => None,
    }
}

/// Whether the text is a day of the calendar as YYYYMMDD.
fn is_date(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_digit()) && Date::strptime("%Y%m%d", text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn born(date_of_birth: &str) -> Profile {
        Profile {
            date_of_birth: date_of_birth.to_owned(),
            ..Profile::default()
        }
    }

    #[test]
    fn a_date_of_birth_is_a_day_of_the_calendar() {
        for date in ["", "19700101", "20000229", "19991231"] {
            assert_eq!(check(&born(date), ""), Ok(()), "{date}");
        }
        for date in [
            "19000229",
            "19701301",
            "1970-1-1",
            "197001",
            "19700100",
            "+1970011",
            "١٩٧٠٠١٠١",
        ] {
            assert_eq!(check(&born(date), ""), Err(InvalidField(Field::DateOfBirth)), "{date}");
        }
    }

    #[test]
    fn an_attribute_has_its_limit_in_characters() {
        assert_eq!(check(&Profile::default(), &"é".repeat(128)), Ok(()));
        assert_eq!(
            check(&Profile::default(), &"é".repeat(129)),
            Err(InvalidField(Field::Reference))
        );
        let zip = Profile {
            zip: "0".repeat(17),
            ..Profile::default()
        };
        assert_eq!(check(&zip, ""), Err(InvalidField(Field::Zip)));
    }

    #[test]
    fn a_control_character_is_refused() {
        let city = Profile {
            city: "Strat\nford".to_owned(),
            ..Profile::default()
        };
        assert_eq!(check(&city, ""), Err(InvalidField(Field::City)));
    }
}
