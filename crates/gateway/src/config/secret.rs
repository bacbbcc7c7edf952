//! What is shown of secrets.

use super::Key;

/// What stands in place of a secret. A file that has it is refused.
pub(crate) const MASK: &str = "********";

/// Parts of the names of a URL's parameters that are secret.
const NAMES: [&str; 3] = ["password", "secret", "token"];

/// A value as it may be shown.
pub(crate) fn masked(key: &Key, value: &str) -> String {
    match key.is_secret() && !key.is_url() {
        true => MASK.to_owned(),
        false => masked_url(value),
    }
}

/// Whether a message may quote a value.
pub(crate) fn is_quotable(key: &Key, value: &str) -> bool {
    !key.is_secret() && !value.contains("//")
}

/// A URL without its passwords; what is none stays as it is.
fn masked_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = match rest.rfind('@') {
        // A password with a slash, or a path with an @: it cannot be told.
        Some(at) if at > end => return format!("{scheme}://{MASK}"),
        _ => rest.split_at(end),
    };
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:{MASK}@{host}"),
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    let rest = match rest.split_once('?') {
        Some((path, query)) => {
            let parameters: Vec<String> = query.split('&').map(masked_parameter).collect();
            format!("{path}?{}", parameters.join("&"))
        }
        None => rest.to_owned(),
    };
    format!("{scheme}://{authority}{rest}")
}

fn masked_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if NAMES.iter().any(|part| name.to_ascii_lowercase().contains(part)) => {
            format!("{name}={MASK}")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_masked_and_the_rest_is_not() {
        for (url, shown) in [
            ("sqlite:///var/lib/dcams.db", "sqlite:///var/lib/dcams.db"),
            ("postgres://app@h/d", "postgres://app@h/d"),
            ("postgres://app:hush@h/d", "postgres://app:********@h/d"),
            ("postgres://app:hu@sh@a,b/d", "postgres://app:********@a,b/d"),
            ("postgres://app:hu/sh@h/d", "postgres://********"),
            ("postgres://app:hu?sh@h/d", "postgres://********"),
            (
                "postgres://h/d?sslmode=verify-full",
                "postgres://h/d?sslmode=verify-full",
            ),
            (
                "postgres://h/d?user=app&password=hush&sslPassword=hush#x",
                "postgres://h/d?user=app&password=********&sslPassword=********",
            ),
            ("http://127.0.0.1:1", "http://127.0.0.1:1"),
            ("no URL", "no URL"),
        ] {
            assert_eq!(masked_url(url), shown, "{url}");
        }
    }
}
