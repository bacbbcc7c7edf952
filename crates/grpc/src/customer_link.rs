//! Where people can look at a customer.

use std::{str::FromStr, sync::Arc};

/// A template for links to customers: a URL with `{id}` where the customer's public id goes. The default gives none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomerLink(Arc<str>);

/// The text is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidLink;

impl std::fmt::Display for InvalidLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a link is an http:// or https:// URL with {id} once in it")
    }
}

impl std::error::Error for InvalidLink {}

/// What stands for the public id.
const ID: &str = "{id}";

impl FromStr for CustomerLink {
    type Err = InvalidLink;

    fn from_str(text: &str) -> Result<Self, InvalidLink> {
        let is_url = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
        // It stands in replies as it is.
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_url && plain && text.matches(ID).count() == 1 {
            Ok(Self(text.into()))
        } else {
            Err(InvalidLink)
        }
    }
}

impl CustomerLink {
    /// The link to the customer of that public id; empty where there is no template.
    pub(crate) fn to(&self, public_id: &str) -> String {
        self.0.replace(ID, public_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_the_id_in_its_place() {
        let link: CustomerLink = "https://admin.example.com/customers/{id}?tab=1".parse().unwrap();
        assert_eq!(link.to("a1"), "https://admin.example.com/customers/a1?tab=1");
        assert_eq!(CustomerLink::default().to("a1"), "");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in [
            "",
            "https://a/",
            "a/{id}",
            "https://a/{id}/{id}",
            "https://a/{id} b",
            "javascript:{id}",
        ] {
            assert_eq!(text.parse::<CustomerLink>(), Err(InvalidLink), "{text}");
        }
    }
}
