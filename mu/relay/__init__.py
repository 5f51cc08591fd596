"""The relay: worker to worker, past the coordinator. switchboard decides, spool keeps, protocol moves."""
