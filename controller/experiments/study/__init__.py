"""The study: every policy in every scenario, under the channels and stresses that it may meet."""
