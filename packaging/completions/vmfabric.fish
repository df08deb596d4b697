complete --keep-order --exclusive --command vmfabric --arguments "(COMPLETE=fish vmfabric -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
