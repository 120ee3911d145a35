import dev.tandem.client.EventStream;
import dev.tandem.client.TandemClient;
import dev.tandem.client.TandemException;
import dev.tandem.v1.GenerationSpec;
import dev.tandem.v1.StoppingOptions;
import java.io.File;
import java.util.Map;

/** Prints a text as it comes. The argument is its beginning. */
final class StreamText {
  private StreamText() {}

  public static void main(String[] arguments) {
    Map<String, String> environment = System.getenv();
    TandemClient.Builder builder = TandemClient.builder(environment.getOrDefault("TANDEM_ADDRESS", "127.0.0.1:8700"));
    if (environment.containsKey("TANDEM_CA_FILE")) {
      builder.authorities(new File(environment.get("TANDEM_CA_FILE")));
    }
    builder.apiKey(environment.get("TANDEM_API_KEY"));
    GenerationSpec spec =
        GenerationSpec.newBuilder()
            .setText(arguments.length > 0 ? arguments[0] : "import json\n")
            .setStopping(StoppingOptions.newBuilder().setMaxTokens(64))
            .build();
    try (TandemClient client = builder.build();
        EventStream events = client.stream(spec)) {
      events.texts().forEach(System.out::print);
      System.out.println();
    } catch (TandemException error) {
      System.err.println(error.getMessage());
      System.exit(1);
    }
  }
}
