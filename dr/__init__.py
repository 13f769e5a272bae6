"""Disaster recovery: the backup in BigQuery, the way back, and the proof that both agree."""
