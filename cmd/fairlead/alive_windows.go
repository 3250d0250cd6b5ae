package main

import "os"

// FindProcess fails on Windows where there is none.
func processAlive(*os.Process) bool { return true }
