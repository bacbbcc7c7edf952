//! Accounts and customers to test with, made as an operator makes them.

use super::{Database, dcams};

impl Database {
    /// Creates an account.
    pub fn create_account(&self, name: &str, password: &str) {
        dcams(self, &["account", "create", name, "--password-stdin"], password).ok();
    }

    /// Registers the customers of a CSV text.
    pub fn import(&self, account: &str, csv: &str) {
        let file = self.file(&format!("{account}.csv"), csv);
        dcams(
            self,
            &["customer", "import", file.to_str().unwrap(), "--account", account],
            "",
        )
        .ok();
    }
}
