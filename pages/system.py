"""For whoever runs the program: is it sound, what does the log say, what is kept for how long."""

from medfusion.access import ADMINISTRATOR
from pages.ui import components, login, system
from pages.ui.messages import explained_errors

login.enter(ADMINISTRATOR)

components.page_head("System")
with explained_errors():
    system.show_checks()
    system.show_log()
    system.show_retention()
    system.show_output()
