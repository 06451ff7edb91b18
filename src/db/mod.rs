//! PostgreSQL: pool, migrations, notifications, and one module of SQL per table family.
