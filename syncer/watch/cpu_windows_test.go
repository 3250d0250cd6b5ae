package watch

import "time"

func cpuTime() time.Duration { return 0 } // of use where the benchmark is run by hand
