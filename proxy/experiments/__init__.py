"""An experiment: cohorts, fault rules, steady state, cohort tag, and the life cycle of a run."""
