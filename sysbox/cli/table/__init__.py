"""The option table: every verb and every flag, once."""
