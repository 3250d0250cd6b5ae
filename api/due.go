package api

import "time"

// Due is an environment of the user's that nobody uses and that goes soon: it is put to sleep within minutes, or deleted
// within a day.
type Due struct {
	// ID names the environment, what becomes of it and when: it is another where any of them is.
	ID string `json:"id"`
	Environment
	Dir  string    `json:"dir,omitempty"` // it was made for, on whichever machine
	UID  string    `json:"uid"`
	Then string    `json:"then"` // "sleep" or "delete"
	At   time.Time `json:"at"`   // when, by the cluster's clock
	Why  string    `json:"why"`
}

// The answers to what is due (POST /v1/due/ID).
const (
	DueKeep = "keep" // for a day, used or not
	DueStop = "stop" // it is removed now
)

// DueRequest is one of them.
type DueRequest struct {
	Do string `json:"do"`
}
