package watch

import "syscall"

// errNotDir is what looking at a path gives when one of its folders is a file now.
const errNotDir = syscall.ERROR_PATH_NOT_FOUND
