module example.com/app

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/grpc v1.82.1
	google.golang.org/protobuf v1.36.12-0.20260120151049-f2248ac996af
)

require (
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260414002931-afd174a4e478 // indirect
)

// The calls' signatures are all that is looked at, and one module less to download.
replace connectrpc.com/connect => ./connectrpc
