//! What a customer's attributes may hold: the one place for their limits.

use jiff::civil::Date;

use crate::Profile;

/// An attribute holds what it may not. The name is the attribute's name in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} is invalid")]
pub struct InvalidField(pub &'static str);

/// Checks the attributes and the reference of a customer: at most so many characters, none of them a control
/// character, and a date of birth that is a date. The email is not looked at: an [`crate::Email`] is valid.
///
/// # Errors
/// [`InvalidField`] with the first attribute at fault.
pub fn check(profile: &Profile, reference: &str) -> Result<(), InvalidField> {
    for (name, value, most) in [
        ("first_name", &*profile.first_name, 200),
        ("last_name", &*profile.last_name, 200),
        ("address", &*profile.address, 200),
        ("city", &*profile.city, 100),
        ("state", &*profile.state, 100),
        ("zip", &*profile.zip, 16),
        ("date_of_birth", &*profile.date_of_birth, 8),
        ("phone", &*profile.phone, 32),
        ("reference", reference, 128),
    ] {
        if value.chars().count() > most || value.chars().any(char::is_control) {
            return Err(InvalidField(name));
        }
    }
    let born = &profile.date_of_birth;
    if !born.is_empty() && !is_date(born) {
        return Err(InvalidField("date_of_birth"));
    }
    Ok(())
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
            assert_eq!(check(&born(date), ""), Err(InvalidField("date_of_birth")), "{date}");
        }
    }

    #[test]
    fn an_attribute_has_its_limit_in_characters() {
        assert_eq!(check(&Profile::default(), &"é".repeat(128)), Ok(()));
        assert_eq!(
            check(&Profile::default(), &"é".repeat(129)),
            Err(InvalidField("reference"))
        );
        let zip = Profile {
            zip: "0".repeat(17),
            ..Profile::default()
        };
        assert_eq!(check(&zip, ""), Err(InvalidField("zip")));
    }

    #[test]
    fn a_control_character_is_refused() {
        let city = Profile {
            city: "Strat\nford".to_owned(),
            ..Profile::default()
        };
        assert_eq!(check(&city, ""), Err(InvalidField("city")));
    }
}
