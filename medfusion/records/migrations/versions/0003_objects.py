"""The pseudonym of a case's own object, so that an archive can send it twice and it stays one case."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("cases", sa.Column("sop", sa.String(length=64), nullable=False, server_default=""))
    op.create_index("ix_cases_sop", "cases", ["sop"])


def downgrade() -> None:
    op.drop_index("ix_cases_sop", "cases")
    op.drop_column("cases", "sop")
