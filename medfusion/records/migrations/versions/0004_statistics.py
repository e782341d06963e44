"""PostgreSQL's planner keeps samples of columns, which outlive removed rows: none of what tells of a patient."""

from alembic import op

revision = "0004"
down_revision = "0003"
PERSONAL = {"cases": ("patient", "study", "series", "sop"), "reads": ("comment",)}


def upgrade() -> None:
    set_statistics(0)


def downgrade() -> None:
    set_statistics(-1)


def set_statistics(samples: int) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, columns in PERSONAL.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS {samples}")
