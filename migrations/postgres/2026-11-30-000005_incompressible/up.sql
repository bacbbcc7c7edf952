-- Hashes and images cannot be made smaller: to try took a twentieth of the server's time while the history was sealed.
ALTER TABLE audit_blocks ALTER COLUMN entries SET STORAGE EXTERNAL;
ALTER TABLE documents ALTER COLUMN content SET STORAGE EXTERNAL;
