"""The admin API: one file a task; `routes` says what there is, `admin_door` who may come in."""
