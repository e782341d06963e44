"""What was seen, answered and read here: cases, answers, explanations, reads, runs, and a log that shows tampering."""
