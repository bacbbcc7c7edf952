//! The columns of a file of customers, which an import reads and an export writes.

use store::Customer;

/// The columns: the keys of the REST face, and the names of the same in the contract. The last two are paths of images.
pub(crate) const COLUMNS: [(&str, &str); 13] = [
    ("email", "email"),
    ("fn", "first_name"),
    ("ln", "last_name"),
    ("addr", "address"),
    ("city", "city"),
    ("state", "state"),
    ("zip", "zip"),
    ("dob", "date_of_birth"),
    ("phone", "phone"),
    ("reference", "reference"),
    ("status", "status"),
    ("front", "documents.front"),
    ("back", "documents.back"),
];

/// How many of the columns are of a customer without its images.
pub(crate) const PLAIN: usize = COLUMNS.len() - 2;

/// The values of a customer, in the order of the columns.
pub(crate) fn values(customer: &Customer) -> [&str; PLAIN] {
    let profile = &customer.profile;
    [
        &profile.email,
        &profile.first_name,
        &profile.last_name,
        &profile.address,
        &profile.city,
        &profile.state,
        &profile.zip,
        &profile.date_of_birth,
        &profile.phone,
        &customer.reference,
        customer.status.as_str(),
    ]
}
