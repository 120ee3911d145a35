#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>

namespace tandem {

// A call that failed: the gRPC code, and what the server's google.rpc details say about it.
//
// Everything but the code is empty when the failure came from the transport: a connection that broke, a deadline that
// passed here, a call that this client cancelled.
class Error : public std::runtime_error {
 public:
  explicit Error(const grpc::Status& status);

  grpc::StatusCode code() const { return code_; }

  // The same as text, such as INVALID_ARGUMENT.
  const char* code_name() const;

  // What went wrong, for programs, such as INVALID_REQUEST or QUEUE_FULL.
  const std::string& reason() const { return reason_; }

  // Whose reason it is: tandem.
  const std::string& domain() const { return domain_; }

  // Path of the field that cannot be served, such as spec.sampling.temperature.
  const std::string& field() const { return field_; }

  // What is wrong with that field, for people.
  const std::string& description() const { return description_; }

  // How long the server asks to wait before the call is tried again.
  std::optional<std::chrono::nanoseconds> retry_delay() const { return retry_delay_; }

  // The id under which the server's log has more; internal errors have it.
  const std::string& request_id() const { return request_id_; }

 private:
  grpc::StatusCode code_;
  std::string reason_, domain_, field_, description_, request_id_;
  std::optional<std::chrono::nanoseconds> retry_delay_;
};

}  // namespace tandem
