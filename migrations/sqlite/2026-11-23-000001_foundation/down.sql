DROP TABLE status_changes;
DROP TABLE customers;
DROP TABLE accounts;
