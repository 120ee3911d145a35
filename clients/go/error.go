package tandem

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is a call that was refused, failed, was cancelled, or took too long. It is context.Canceled or
// context.DeadlineExceeded to errors.Is when its code says so, and a status to the status package.
type Error struct {
	// Code is gRPC's.
	Code codes.Code
	// Message is for people.
	Message string
	// Reason is for programs: INVALID_REQUEST, QUEUE_FULL, and so on. Empty when no gateway said it.
	Reason string
	// Domain is who gave the reason: tandem.
	Domain string
	// Field is the path of the field that was refused, such as spec.sampling.temperature.
	Field string
	// Description is what is wrong with Field.
	Description string
	// RetryAfter is the time after which it is worth asking again.
	RetryAfter time.Duration
	// RequestID is what to look for in the gateway's log after an internal error.
	RequestID string

	status *status.Status
}

// Error names the code and says what is wrong.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Is makes a call that its context ended known by the context's own errors.
func (e *Error) Is(target error) bool {
	switch e.Code {
	case codes.Canceled:
		return target == context.Canceled
	case codes.DeadlineExceeded:
		return target == context.DeadlineExceeded
	}
	return false
}

// GRPCStatus is the status as it came, with every detail.
func (e *Error) GRPCStatus() *status.Status {
	return e.status
}

// asError is err as an *Error; nil stays nil.
func asError(err error) error {
	if err == nil {
		return nil
	}
	answer := status.Convert(err)
	e := &Error{Code: answer.Code(), Message: answer.Message(), status: answer}
	for _, detail := range answer.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Domain = d.GetReason(), d.GetDomain()
		case *errdetails.BadRequest:
			for _, violation := range d.GetFieldViolations() {
				e.Field, e.Description = violation.GetField(), violation.GetDescription()
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.RequestInfo:
			e.RequestID = d.GetRequestId()
		}
	}
	return e
}
