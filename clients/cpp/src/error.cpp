#include "tandem/error.h"

#include <iterator>

#include "tandem/client/status_details.pb.h"

namespace tandem {
namespace {

const char* name_of(grpc::StatusCode code) {
  static const char* const names[] = {
      "OK",        "CANCELLED",        "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS",   "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",     "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED",
  };
  const auto index = static_cast<std::size_t>(code);
  return index < std::size(names) ? names[index] : "UNKNOWN";
}

// Reads a detail if it is a google.rpc message of this type's name.
template <typename T>
bool read(const google::protobuf::Any& detail, T* message) {
  return detail.type_url() == "type.googleapis.com/google.rpc." + T::descriptor()->name() &&
         message->ParseFromString(detail.value());
}

}  // namespace

Error::Error(const grpc::Status& status)
    : std::runtime_error(std::string(name_of(status.error_code())) + ": " + status.error_message()),
      code_(status.error_code()) {
  client::Status details;
  if (!details.ParseFromString(status.error_details())) return;
  client::ErrorInfo info;
  client::BadRequest bad_request;
  client::RetryInfo retry;
  client::RequestInfo request;
  for (const auto& detail : details.details()) {
    if (read(detail, &info)) {
      reason_ = info.reason();
      domain_ = info.domain();
    } else if (read(detail, &bad_request) && bad_request.field_violations_size() > 0) {
      field_ = bad_request.field_violations(0).field();
      description_ = bad_request.field_violations(0).description();
    } else if (read(detail, &retry)) {
      retry_delay_ = std::chrono::seconds(retry.retry_delay().seconds()) +
                     std::chrono::nanoseconds(retry.retry_delay().nanos());
    } else if (read(detail, &request)) {
      request_id_ = request.request_id();
    }
  }
}

const char* Error::code_name() const { return name_of(code_); }

}  // namespace tandem
